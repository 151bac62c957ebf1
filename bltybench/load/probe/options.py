"""The probe's options on Locust's command line."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner
from pydantic import SecretStr

from bltybench.errors import UserError
from bltybench.limits.experiments.registry import MEASUREMENTS, REQUESTS
from bltybench.limits.probe.thresholds import PLAN
from bltybench.limits.session import RECORD_FILE, ProbeTask
from bltybench.load.locust_plugin.console import print_error
from bltybench.runs.folder import RunFolder, find_run
from bltybench.scenario.api.access import read_key
from bltybench.scenario.api.documented_limits import MINUTE_S, Limit, one_limit, per_minute
from bltybench.scenario.target import Target

MAX_PERIOD_S = 3600.0
"""Longest documented period for which the probe waits, in seconds."""
WRONG_KEYS = "401"
"""Item of ``--probe-ask`` that permits requests with a wrong key."""


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add the probe's options to Locust's."""
    group = parser.add_argument_group("bltybench rate-limit probe")

    def add(name: str, help_text: str, default: str | int = "") -> None:
        group.add_argument(name, type=type(default), default=default, help=help_text)

    quick = (
        f"Measure limit, period, and class of algorithm only: {PLAN.quick_budget} requests in two periods."
    )
    group.add_argument("--quick", action="store_true", help=quick)
    names = ", ".join(MEASUREMENTS)
    add(
        "--probe-ask",
        f"Comma-separated list of what to measure: {names}. {WRONG_KEYS} extends charges to requests with a "
        f"wrong key. Default: all but {WRONG_KEYS}",
        ",".join(MEASUREMENTS),
    )
    add("--probe-budget", "Maximum requests. Default: 1000", 1000)
    add("--probe-tokens", "Maximum prompt and completion tokens. Default: 1000000", 1_000_000)
    group.add_argument("--probe-period", type=float, help="Expected period of the limit, in seconds.")
    add("--probe-model", "Second model, to test whether models share a limit. Default: from the models list")
    add(
        "--probe-second-key-env",
        "Environment variable with a second key, to test whether keys share a limit.",
    )
    add("--probe-resume", "Interrupted probe run to resume.")


def check_options(environment: Environment) -> set[str]:
    """Return the environment variables that hold additional keys. Exit if an option is invalid."""
    options = environment.parsed_options
    if options is None or isinstance(environment.runner, WorkerRunner):
        return set()
    try:
        _validate(options)
    except UserError as error:
        sys.exit(print_error(error))
    return {options.probe_second_key_env} - {""}


def read_task(options: Namespace, target: Target) -> ProbeTask:
    """Return what to measure on a target, within its budget."""
    items, budget, limits = _items(options), target.budget, target.documented
    return ProbeTask(
        questions=(REQUESTS,) if options.quick else tuple(name for name in MEASUREMENTS if name in items),
        quick=options.quick,
        budget=min(options.probe_budget, budget.requests or options.probe_budget),
        tokens=min(options.probe_tokens, budget.tokens or options.probe_tokens),
        period_s=options.probe_period or _documented_period_s(limits),
        other_model=options.probe_model or None,
        second_key=bool(options.probe_second_key_env),
        with_401=WRONG_KEYS in items,
        requests_per_min=per_minute(limits, "requests"),
        tokens_per_min=per_minute(limits, "tokens"),
        concurrency=per_minute(limits, "concurrency"),
    )


def _documented_period_s(limits: Sequence[Limit]) -> float | None:
    """Return the period of the request limit, if it is to be expected of the token limit too.

    The probe expects a minute by itself, and can't wait for a period as long as a day.
    """
    requests = one_limit(limits, "requests")
    if requests is None or any(limit.period_s == MINUTE_S for limit in limits):
        return None
    period_s = requests.period_s
    return period_s if period_s is not None and period_s <= MAX_PERIOD_S else None


def read_second_key(options: Namespace) -> SecretStr | None:
    """Return the second API key, if there is one. Raises UserError if it is not set or can't be sent."""
    name = options.probe_second_key_env
    if not name:
        return None
    key = read_key(name)
    if key is None:
        raise UserError(
            f"the environment variable {name} is not set",
            where="--probe-second-key-env",
            remedy=f"export {name}=… (read from the environment only, and never stored)",
        )
    return key


def resumed_run(options: Namespace) -> RunFolder | None:
    """Return the run that the probe resumes, if there is one. Raises UserError if it can't be resumed."""
    if not options.probe_resume:
        return None
    folder = find_run(options.probe_resume, Path(options.reports))
    if not (folder.path / RECORD_FILE).is_file():
        raise UserError(
            f"{folder.path} is not a run of the probe, so there is nothing to resume",
            where="--probe-resume",
            remedy="name the run that the interrupted probe has printed",
        )
    return folder


def _items(options: Namespace) -> list[str]:
    return [name.strip() for name in options.probe_ask.split(",") if name.strip()]


def _validate(options: Namespace) -> None:
    items = _items(options)
    unknown = [item for item in items if item not in {*MEASUREMENTS, WRONG_KEYS}]
    if unknown or not set(items) & set(MEASUREMENTS):
        raise UserError(
            f"unknown item '{unknown[0]}'" if unknown else "nothing to measure",
            where="--probe-ask",
            remedy=f"choose from {', '.join(MEASUREMENTS)} and {WRONG_KEYS}",
        )
    for name in ("probe_budget", "probe_tokens", "probe_period"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise UserError(f"must be more than 0: {value}", where=f"--{name.replace('_', '-')}")
    read_second_key(options)
    resumed_run(options)
