"""Locust event hooks, command-line options, terminal output, and the web tab."""
