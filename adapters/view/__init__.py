"""``eventlog view``: a page to look at conversations. The only package that knows a web server."""
