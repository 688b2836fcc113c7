"""The data manager turns the source that a request names into one canonical dataset, or says why it cannot."""
