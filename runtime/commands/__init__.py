"""What is asked of a swarm from outside: commands, guests, and how both are described."""
