"""Exports of a summary: JUnit, Markdown, Prometheus, and hashes of the raw files."""
