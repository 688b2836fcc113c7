"""Learning-rate schedules, one file each: functions of the step, and of the evaluations before it."""
