"""The resource monitor samples the machine, warns running sessions of shortages, and sums up what they cost."""
