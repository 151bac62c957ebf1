"""The capacity search: trials, the workers that run them, and the messages between them."""
