"""The command line ``eventlog``: a module for each command, and what they share."""
