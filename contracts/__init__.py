"""Stigmergy: what can be said in the swarm. Pure values, no transport, no torch, no clock of their own.

An *event* is a fact in the past tense (`contracts.event`), one file per speaker. An *envelope* says who, when and
because of what (`contracts.envelope`). A *session* is the fold of its events (`contracts.session`). A *request* is
the complete description of a training (`contracts.request`). Errors form one tree (`contracts.errors`).
"""
