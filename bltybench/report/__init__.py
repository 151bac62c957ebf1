"""Figures, the HTML page, exports."""
