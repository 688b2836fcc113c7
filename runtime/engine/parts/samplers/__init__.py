"""Which row stands where in the endless row, one file each: bijections, without memory."""
