"""The sources of rows, one file each."""
