"""What is wrong with a session, as a pure fold over its log: the evidence, the rules, and what is said of it."""
