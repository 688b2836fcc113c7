"""The command line: related commands share a file; nothing here is imported by the rest of the runtime."""
