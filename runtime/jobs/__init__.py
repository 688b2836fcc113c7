"""Children of a host: forked from zygotes, spoken to in frames, watched until they end."""
