"""What the data manager has done in children."""
