"""Lists of sessions: filters, order and pages."""
