"""What runs in children: making a file, and proving in another process that it computes what was trained."""
