"""Which request belongs to which run, agent, model and turn."""
