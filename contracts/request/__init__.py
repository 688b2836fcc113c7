"""The training request: its sections and one reader. Every option here is a part of the engine or of an agent."""

from contracts.request.reading import read_request
from contracts.request.request import MODES, Request

__all__ = ["MODES", "Request", "read_request"]
