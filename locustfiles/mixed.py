"""The scenario's mix of plain and streaming calls: `locust -f locustfiles/mixed.py`."""

from bltybench.load import ScenarioUser


class Mixed(ScenarioUser):
    """Replays scenario `quickstart`, or that of --scenario."""

    scenario = "quickstart"
