"""The application layer, shared by all adapters and the command line. It does not depend on an SDK."""
