"""The highest load at which objectives hold: `locust -f locustfiles/capacity.py --headless`."""

from bltybench.load import ScenarioUser


class Capacity(ScenarioUser):
    """Runs the search of scenario `find-capacity`, or of --scenario."""

    scenario = "find-capacity"
