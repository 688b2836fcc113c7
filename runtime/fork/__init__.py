"""Sessions that begin in another's bits: what may be asked, what they inherit, where their first state comes from."""
