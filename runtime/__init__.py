"""Stigmergy: what agents run on. The engine, processes, records, audits, the command line."""
