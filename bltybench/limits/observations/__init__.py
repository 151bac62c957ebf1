"""Observations: what attempts show about a limiter."""
