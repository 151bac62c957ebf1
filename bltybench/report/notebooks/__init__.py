"""The notebooks in ``analysis/``: what they conclude and show, and HTML export."""

RUN_VARIABLE = "BLTYBENCH_RUN"
"""Environment variable that tells the kernel, a process of its own, which run to read."""
