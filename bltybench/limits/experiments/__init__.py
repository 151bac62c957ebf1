"""Experiments besides the request limit: concurrency, tokens, and what counts against a limit."""
