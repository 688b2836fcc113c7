"""A home: its folders, settings, the files that requests may name, the workloads that were added."""
