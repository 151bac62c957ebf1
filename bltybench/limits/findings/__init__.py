"""Findings: conclude from attempts, describe in words, and write limits.toml."""
