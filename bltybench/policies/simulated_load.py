"""The calls of a simulation: when they are due, how many tokens they use, and which APIs they are sent to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Protocol

from bltybench.errors import UserError
from bltybench.scenario.api.call_size import CallSize
from bltybench.scenario.api.routes import Router
from bltybench.scenario.arrivals.arrivals import Arrival, schedule
from bltybench.scenario.patterns import Closed
from bltybench.scenario.prompts.lengths import draw
from bltybench.scenario.target import SandboxLimits, SandboxSettings, Target
from bltybench.scenario.workload import Call, Scenario

MAX_CALLS = 2_000_000
"""Maximum calls of a simulation, which are kept in memory."""
DEFAULT_RESPONSE_S = 1.0
"""Duration of a response of a server other than the sandbox, in seconds."""
REFUSAL_S = 0.02
"""Duration of a refusal, in seconds."""


RoutesOf = Callable[[Call, int], tuple[int, ...]]


class ResponseTimes(Protocol):
    """How long responses take."""

    @property
    def refusal_s(self) -> float:
        """Duration of the next refusal, in seconds."""
        ...

    def of(self, completion_tokens: int) -> float:
        """Return the seconds for the next response."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """Duration of a response, by the median delays of the server."""

    first_s: float
    per_token_s: float
    refusal_s: float = REFUSAL_S
    """Duration of a refusal."""

    def of(self, completion_tokens: int) -> float:
        """Return the seconds for a response."""
        return self.first_s + self.per_token_s * completion_tokens


def service_time(settings: SandboxSettings | None, response_s: float | None) -> ServiceTime:
    """Return the time that is given, or else that of the sandbox, or else a second."""
    if response_s is not None or settings is None:
        return ServiceTime(DEFAULT_RESPONSE_S if response_s is None else response_s, 0.0)
    return ServiceTime(settings.ttft.median_ms / 1e3, settings.itl.median_ms / 1e3)


@dataclass(frozen=True, slots=True)
class SimulatedLoad:
    """What a number of independent clients send. They share the server's limits."""

    clients: int
    users: int
    """Calls that all clients together can have in progress, waits before retries included."""
    due_s: tuple[float, ...] | None
    """Due times in order; the clients take turns. None for a closed loop."""
    think_s: float
    """Pause of a closed loop between two calls of a user, in seconds."""
    end_s: float | None
    """Time at which no more calls become due, in seconds. None for a batch, which ends with its last call."""
    sizes: tuple[CallSize, ...]
    """Tokens of the calls, in order. A closed loop repeats them."""
    routes: tuple[tuple[int, ...], ...] = ((0,),)
    """Numbers of the APIs of each call, repeated like ``sizes``: the first attempt's, and those it falls back
    to."""

    def users_of(self, client: int) -> int:
        """Return the number of users of a client."""
        return len(range(client, self.users, self.clients))


class SimulatedRoutes:
    """The routes of a scenario's calls. Routes that share their limits are one API."""

    def __init__(
        self, scenario: Scenario, targets: Mapping[str, Target], limits: Mapping[str, SandboxLimits]
    ) -> None:
        """``limits`` are those of each target."""
        keys = {name: target.keys or dict.fromkeys(target.key_names, 1.0) for name, target in targets.items()}
        self._router = Router(scenario.seed, keys, scenario.retry.fallback)
        self._scenario = scenario
        self._limits = limits
        self._numbers: dict[tuple[str, str | None, str | None], int] = {}

    def __call__(self, call: Call, index: int) -> tuple[int, ...]:
        """Return the numbers of the APIs of a call, the first attempt's first."""
        numbers = self._numbers
        found = []
        for target, key, model in self._router.routes(self._scenario.choices(call), str(index)):
            per = self._limits[target].per
            scope = (target, key if "key" in per else None, model if "model" in per else None)
            found.append(numbers.setdefault(scope, len(numbers)))
        return tuple(found)

    @property
    def limits(self) -> list[SandboxLimits]:
        """The limits of each API that was used so far, by its number."""
        return [self._limits[target] for target, _, _ in self._numbers]


def load_of(
    scenario: Scenario,
    base_dir: Path,
    *,
    clients: int,
    batch: int | None = None,
    routes: RoutesOf | None = None,
) -> SimulatedLoad:
    """Return the load of a scenario; ``batch`` calls that are all due immediately replace its arrivals.

    ``routes`` returns the numbers of the APIs of a call, by its entry in the mix and its number.
    Raise UserError if there are more clients than users, too many calls, or arrivals that depend on results.
    """
    if clients > scenario.users:
        raise UserError(
            f"{clients} clients need at least as many users, but the scenario has {scenario.users}",
            remedy=f"use --users {clients}",
        )
    if not scenario.mix:
        raise UserError("the scenario has no mix, so its calls have no sizes", remedy="add calls to its mix")
    rng = Random(f"{scenario.seed}/simulated")
    arrivals: Sequence[Arrival] | None = None
    if batch is not None:
        arrivals = [Arrival(index, 0.0) for index in range(batch)]
    elif not isinstance(scenario.arrivals, Closed):
        arrivals = _arrivals(scenario, base_dir)
    # A closed loop's calls are unknown beforehand, so their sizes are a sample.
    sized = arrivals or [Arrival(index, 0.0) for index in range(1000)]
    drawn = list(_drawn(scenario.mix, sized, rng))
    return SimulatedLoad(
        clients=clients,
        users=scenario.users,
        due_s=None if arrivals is None else tuple(arrival.at_s for arrival in arrivals),
        think_s=scenario.arrivals.think_s if isinstance(scenario.arrivals, Closed) else 0.0,
        end_s=None if batch is not None else scenario.duration_s,
        sizes=tuple(size for _, size in drawn),
        routes=((0,),)
        if routes is None
        else tuple(routes(call, arrival.index) for arrival, (call, _) in zip(sized, drawn, strict=True)),
    )


def _arrivals(scenario: Scenario, base_dir: Path) -> list[Arrival]:
    if not scenario.is_open_loop or scenario.arrivals.kind == "run":
        raise UserError(
            f"arrivals of the kind '{scenario.arrivals.kind}' can't be simulated",
            remedy="choose a scenario with a schedule or a closed loop, or use --calls",
        )
    names = {call.name for call in scenario.mix}
    due = schedule(scenario.arrivals, scenario.duration_s, scenario.seed, base_dir, names)
    arrivals = list(islice(due, MAX_CALLS + 1))
    if len(arrivals) > MAX_CALLS:
        raise UserError(
            f"the schedule has more than {MAX_CALLS:,} calls", remedy="use a shorter --duration-s"
        )
    if not arrivals:
        raise UserError("the schedule has no calls", remedy="use a longer --duration-s")
    return arrivals


def _drawn(mix: Sequence[Call], arrivals: Sequence[Arrival], rng: Random) -> Iterator[tuple[Call, CallSize]]:
    """Yield the entry of the mix and the tokens of each call."""
    named = {call.name: call for call in mix}
    drawn = rng.choices(mix, [call.weight for call in mix], k=len(arrivals))
    for arrival, chosen in zip(arrivals, drawn, strict=True):
        call = chosen if arrival.call is None else named[arrival.call]
        prompt, completion = draw(call.prompt_tokens, rng), draw(call.max_tokens, rng)
        yield (
            call,
            CallSize(
                prompt if arrival.prompt_tokens is None else arrival.prompt_tokens,
                completion if arrival.max_tokens is None else arrival.max_tokens,
            ),
        )
