"""Other formats of a report: JUnit, Markdown, Prometheus, and the raw files."""
