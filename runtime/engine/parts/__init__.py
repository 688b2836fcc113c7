"""The parts of the engine: one folder per kind, one file per thing; a part never imports another."""
