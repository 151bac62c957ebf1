from __future__ import annotations

import pytest

from bltybench.check.drain import MAX_LIMIT
from bltybench.check.evidence import FIXED_REQUESTS
from bltybench.check.reach import reach
from bltybench.check.run import check
from bltybench.errors import UserError
from bltybench.scenario.api.documented_limits import Limits
from bltybench.scenario.target import Budget, SandboxLimits, SandboxSettings, Target


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "no-such-host.invalid"])
def test_unresolvable_name_gives_a_dns_error(host: str) -> None:
    target = Target(base_url=f"http://{host}/v1")
    with pytest.raises(UserError, match="DNS"):
        reach(target, target.access("t"))


@pytest.mark.parametrize(
    ("target", "spend", "expected"),
    [
        (Target(base_url="http://h.invalid/v1"), None, f"at most {FIXED_REQUESTS} requests"),
        (Target(base_url="http://h.invalid/v1"), True, f"at most {FIXED_REQUESTS} requests"),
        (
            Target(base_url="http://h.invalid/v1", limits=Limits(requests_per_min=60)),
            True,
            f"at most {FIXED_REQUESTS + 129} requests",
        ),
        (
            Target(base_url="http://h.invalid/v1", limits=Limits(requests_per_min=MAX_LIMIT + 1)),
            True,
            f"at most {FIXED_REQUESTS} requests",
        ),
        (
            Target(
                base_url="http://localhost:1/v1",
                limits=Limits(requests_per_min=60),
                sandbox=SandboxSettings(limits=SandboxLimits(requests=None)),
                budget=Budget(requests=1),
            ),
            None,
            "budget of target 'unit' is 1",
        ),
    ],
)
def test_spend_is_printed_before_the_first_request(target: Target, spend: bool | None, expected: str) -> None:
    said: list[str] = []
    with pytest.raises(UserError) as raised:
        check("unit", target, spend_429=spend, tell=said.append)
    assert expected in "".join([*said, raised.value.what])
