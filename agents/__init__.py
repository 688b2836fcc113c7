"""Stigmergy: who acts. One package per agent; no other package imports them, and they never import each other."""
