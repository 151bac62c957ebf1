"""Arrivals: schedules and recorded traces."""
