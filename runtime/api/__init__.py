"""What Python programs are given: training, sessions, where a swarm is and how one is started."""
