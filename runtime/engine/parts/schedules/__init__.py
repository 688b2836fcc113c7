"""Learning-rate schedules, one file each: closed forms of the step."""
