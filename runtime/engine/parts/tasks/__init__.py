"""What a session can learn, one file each."""
