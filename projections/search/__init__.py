"""Search in the texts of items, with an index or without."""
