"""Rows, not events: transactions, units of work, and the engines that run them."""
