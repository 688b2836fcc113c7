"""What the validator has done in children."""
