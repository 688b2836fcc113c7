"""An agent and what surrounds it: its supervisor, the presence of others, the keys of a deployment."""
