"""What runs of successive trials store: the capacity search, and the tournament of client policies."""
