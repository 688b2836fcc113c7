"""Stigmergy: who acts. One package per agent; nobody imports them, and they never import each other."""
