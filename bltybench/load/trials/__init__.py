"""The capacity search: its trials, the workers that run them, and the messages between the processes."""
