"""What a session leaves for people to read: derived from its log, written beside it, made again whenever it is lost."""
