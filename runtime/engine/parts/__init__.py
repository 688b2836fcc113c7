"""The parts of the engine: one module per section of a request, one part per option; sections never import another."""
