"""What the trainer does in children: torch is allowed here, the bus is not."""
