"""Views for people and tools that read the file with SQL."""
