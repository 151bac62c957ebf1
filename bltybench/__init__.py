"""Load tests and rate-limit measurements for OpenAI-compatible chat APIs."""

from importlib.metadata import version

__version__ = version("bltybench")
