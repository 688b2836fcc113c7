"""A trained model: its checkpoints by name, asked with rows."""
