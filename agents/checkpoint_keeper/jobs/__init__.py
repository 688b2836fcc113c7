"""What the checkpoint keeper has done in children."""
