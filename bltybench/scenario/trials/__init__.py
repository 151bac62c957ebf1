"""Runs of successive trials: the capacity search, and the tournament of client policies."""
