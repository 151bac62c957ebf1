"""Plain chat completions: `locust -f locustfiles/chat.py`."""

from bltybench.load import ScenarioUser


class Chat(ScenarioUser):
    """Replays scenario `chat`, or that of --scenario, without streaming."""

    scenario = "chat"
    stream = False
