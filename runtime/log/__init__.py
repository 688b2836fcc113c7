"""The log as a process has it in memory and on disk: followed, folded, copied, kept, read again."""
