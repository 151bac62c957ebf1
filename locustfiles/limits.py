"""Finds out the rate limit of an API: `locust -f locustfiles/limits.py --headless`."""

from bltybench.load.probe.user import LimitProbe


class Limits(LimitProbe):
    """Sends bursts and silences to the target of scenario `limits`: the sandbox, or that of --target."""

    scenario = "limits"
