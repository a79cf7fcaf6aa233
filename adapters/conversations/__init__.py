"""The application: what every adapter and the command line call. It knows no SDK."""
