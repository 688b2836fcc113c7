"""A sealed session as one file that is verified without this software: what is in it, how it is written and read."""
