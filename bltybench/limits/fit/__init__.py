"""The fit: find the limiter models that are consistent with the observations."""
