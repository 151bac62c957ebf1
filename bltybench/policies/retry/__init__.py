"""Retry policies of the literature and of SDKs, and budgets."""
