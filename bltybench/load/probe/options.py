"""What the probe can be told on Locust's command line."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import dataclass

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner
from pydantic import SecretStr

from bltybench.errors import UserError
from bltybench.limits.experiments.registry import ALL, REQUESTS
from bltybench.limits.probe.thresholds import PLAN
from bltybench.limits.session import ProbeTask
from bltybench.load.locust_plugin.console import print_error
from bltybench.scenario.target import Target

UNAUTHORIZED = "401"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for."""

    quick: bool
    questions: tuple[str, ...]
    budget: int
    tokens: int
    period_s: float | None
    resume: str
    model: str | None
    second_key: SecretStr | None
    with_401: bool

    def cost(self, task: ProbeTask) -> str:
        """Say what the probe may spend."""
        if self.questions == (REQUESTS,):
            most = min(task.budget, PLAN.quick_budget) if self.quick else task.budget
            return f"The probe may send up to {most:,} requests of one token each"
        return (
            f"The probe asks about {', '.join(self.questions)}. It may send up to {task.budget:,} requests "
            f"and use up to {task.tokens:,} tokens; with limits of a minute it takes about half an hour"
        )


def task_of(wishes: Wishes, target: Target) -> ProbeTask:
    """Return what the probe is to do with a target, within its budget."""
    return ProbeTask(
        questions=wishes.questions,
        quick=wishes.quick,
        budget=_least(wishes.budget, target.budget.requests),
        tokens=_least(wishes.tokens, target.budget.tokens),
        period_s=wishes.period_s,
        other_model=wishes.model,
        second_key=wishes.second_key is not None,
        with_401=wishes.with_401,
        requests_per_min=target.limits.requests_per_min,
        tokens_per_min=target.limits.tokens_per_min,
        concurrency=target.limits.concurrency,
    )


def _least(wanted: int, cap: int | None) -> int:
    return wanted if cap is None else min(wanted, cap)


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add the probe's options to Locust's."""
    group = parser.add_argument_group("bltybench: the probe of rate limits")
    group.add_argument(
        "--quick",
        action="store_true",
        help=f"Limit, period and algorithm only: at most {PLAN.quick_budget} requests within two periods.",
    )
    group.add_argument(
        "--probe-ask",
        default=",".join(ALL),
        help=f"What to find out, with commas between: {', '.join(ALL)}; 401 adds to charges what wrong keys "
        "cost. Default: all but 401",
    )
    group.add_argument("--probe-budget", type=int, default=1000, help="The most requests. Default: 1000")
    group.add_argument(
        "--probe-tokens",
        type=int,
        default=1_000_000,
        help="The most tokens, prompts and answers together. Default: 1000000",
    )
    group.add_argument(
        "--probe-period",
        type=float,
        default=None,
        help="The period in seconds, where it is known beforehand.",
    )
    group.add_argument(
        "--probe-model",
        default="",
        help="Another model: does it share the limit? Default: one that is listed",
    )
    group.add_argument(
        "--probe-second-key-env",
        default="",
        help="Name of the environment variable that holds a second key: does it share the limit?",
    )
    group.add_argument(
        "--probe-resume", default="", help="A run of the probe that was interrupted: go on from what it saw."
    )


def wishes(options: Namespace) -> Wishes:
    """Return what was asked for. Raises UserError for what cannot be."""
    names = [name.strip() for name in options.probe_ask.split(",") if name.strip()]
    wrong = [name for name in names if name not in {*ALL, UNAUTHORIZED}]
    if wrong or not set(names) & set(ALL):
        raise UserError(
            f"there is no question '{wrong[0]}'" if wrong else "nothing is asked",
            where="--probe-ask",
            remedy=f"choose from {', '.join(ALL)} and {UNAUTHORIZED}",
        )
    for name in ("probe_budget", "probe_tokens", "probe_period"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"must be more than 0: {value}", where=f"--{name.replace('_', '-')}")
    return Wishes(
        quick=options.quick,
        questions=(REQUESTS,) if options.quick else tuple(name for name in ALL if name in names),
        budget=options.probe_budget,
        tokens=options.probe_tokens,
        period_s=options.probe_period,
        resume=options.probe_resume,
        model=options.probe_model or None,
        second_key=_second_key(options.probe_second_key_env),
        with_401=UNAUTHORIZED in names,
    )


def check(environment: Environment) -> set[str]:
    """End with a message where the options ask for what cannot be.

    Returns the names of environment variables that hold keys.
    """
    options = environment.parsed_options
    if options is None or isinstance(environment.runner, WorkerRunner):
        return set()
    try:
        wishes(options)
    except UserError as error:
        sys.exit(print_error(error))
    return {options.probe_second_key_env} - {""}


def _second_key(name: str) -> SecretStr | None:
    if not name:
        return None
    value = os.environ.get(name, "").strip()
    if not value:
        raise UserError(
            f"the environment variable {name} is not set",
            where="--probe-second-key-env",
            remedy=f"export {name}=… (read from the environment only, and never stored)",
        )
    return SecretStr(value)
