"""Measure the rate limits of an API: `locust -f locustfiles/limits.py --headless`."""

from bltybench.load.probe.user import LimitProbe


class Limits(LimitProbe):
    """Probes the target of scenario `limits`: the sandbox, or the one that --target names."""

    scenario = "limits"
