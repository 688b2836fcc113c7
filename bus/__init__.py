"""Stigmergy: how events are carried and kept. The log, its in-memory twin, keys, admission, blobs, the server."""
