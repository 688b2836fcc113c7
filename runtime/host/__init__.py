"""The ways to run agents: a host, one agent alone, all of them in one process; their logs, reports and the doctor."""
