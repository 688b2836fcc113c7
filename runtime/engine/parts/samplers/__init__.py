"""Samplers, one file each: which training row is at which position of the endless order; bijections without memory."""
