"""Computing again what a log says was computed, and comparing."""
