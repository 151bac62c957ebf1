"""Pacing policies: when a client sends its next request, before it is refused."""
