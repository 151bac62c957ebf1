"""The report of a run: summary.json, one HTML page, junit.xml, and the data of the figures."""

from bltybench.report.build import build
from bltybench.report.summary import Summary

__all__ = ["Summary", "build"]
