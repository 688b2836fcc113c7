"""The exporter: turns a checkpoint into a file that other software runs, and proves that it computes the same."""
