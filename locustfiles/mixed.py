"""Plain and streaming calls as the scenario mixes them: `locust -f locustfiles/mixed.py`."""

from bltybench.load import ScenarioUser


class Mixed(ScenarioUser):
    """Replays scenario `quickstart`, or that of --scenario."""

    scenario = "quickstart"
