"""The report of a run: summary.json, one HTML page, junit.xml, and the data of the figures."""
