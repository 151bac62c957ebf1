"""One run: its specification, its owner, and what the users of one process share during it."""
