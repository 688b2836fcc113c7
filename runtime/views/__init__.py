"""Sessions as people and programs are shown them: pure functions of what is recorded."""
