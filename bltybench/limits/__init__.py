"""Limiter models: pure objects that decide over time."""
