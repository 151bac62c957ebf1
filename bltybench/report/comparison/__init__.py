"""Comparison of runs: data, page, and figures."""
