"""Sessions, branches and items: the builder and the queries."""
