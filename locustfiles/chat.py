"""Plain chat completions: `locust -f locustfiles/chat.py`."""

from bltybench.load import ScenarioUser


class Chat(ScenarioUser):
    """Replays scenario `chat`, or that of --scenario, with every call plain."""

    scenario = "chat"
    stream = False
