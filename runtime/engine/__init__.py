"""Deterministic training in torch: the same plan, data and machine give the same bits. No clock, no network, no log."""
