"""Sessions, branches and items: the builder, and what readers ask."""
