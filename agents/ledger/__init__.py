"""The ledger keeps a Merkle tree over every session, signs checkpoints of it, and seals what has ended."""
