"""The hyperparameter specialist searches settings by trials that are sessions, and finds learning rates by a test."""
