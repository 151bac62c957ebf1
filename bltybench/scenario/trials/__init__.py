"""Runs of successive trials: the capacity search."""
