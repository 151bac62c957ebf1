"""Streaming chat completions: `locust -f locustfiles/stream.py`."""

from bltybench.load import ScenarioUser


class Stream(ScenarioUser):
    """Replays scenario `stream`, or that of --scenario, and streams every call."""

    scenario = "stream"
    stream = True
