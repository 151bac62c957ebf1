"""Arrivals: schedules, patterns, and recorded traces."""
