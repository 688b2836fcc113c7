"""The checkpoint keeper reads every checkpoint back, keeps those that may be needed, and lets the others go."""
