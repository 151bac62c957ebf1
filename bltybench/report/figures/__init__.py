"""Figures, drawn as SVG with their data."""
