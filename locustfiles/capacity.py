"""The highest load at which objectives hold: `locust -f locustfiles/capacity.py --headless`."""

from bltybench.load import ScenarioUser


class Capacity(ScenarioUser):
    """Searches as scenario `find-capacity` says, or that of --scenario."""

    scenario = "find-capacity"
