"""The client policy to use: `locust -f locustfiles/policies.py --headless`."""

from bltybench.load import ScenarioUser


class Policies(ScenarioUser):
    """Runs the tournament of scenario `compare-policies`, or of --scenario."""

    scenario = "compare-policies"
