"""Limiter inference: models, observations, the fit, the probe, and the findings. No sockets or files."""
