"""Conformance check: compare an API with the reference, one expectation at a time, using httpx."""
