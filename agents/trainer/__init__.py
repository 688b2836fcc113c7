"""The trainer claims sessions, runs the engine in sealed children, and holds and applies decisions."""
