"""The notebooks in ``analysis/``: display helpers and HTML export."""
