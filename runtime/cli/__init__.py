"""The command line, one file per command; nothing here is imported by the rest of the runtime."""
