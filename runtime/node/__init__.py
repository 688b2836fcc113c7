"""An agent and what surrounds it: its supervisor, the presence of others, the roster of agents."""
