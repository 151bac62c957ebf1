"""What a run prints on the terminal before it starts: errors, and what it will send and spend."""

from __future__ import annotations

import logging
import sys

from bltybench.errors import UserError
from bltybench.load.run.run import Run
from bltybench.scenario.plan import Plan

logger = logging.getLogger("bltybench")

COULD_NOT_RUN = 2
"""Exit code of a run that could not start."""


def print_error(error: UserError) -> int:
    """Print an error and return the exit code for it."""
    print(f"bltybench: {error}", file=sys.stderr, flush=True)
    return COULD_NOT_RUN


def announce(run: Run, plan: Plan | None) -> None:
    """Log the target, what will be sent, and the maximum spend.

    Pass no ``plan`` if only the locustfile determines what is sent.
    """
    resolved, target = run.resolved, run.resolved.target
    logger.info(
        "Run %s: scenario %s on %s for %g s",
        run.folder.path.name,
        resolved.name,
        target.base_url,
        resolved.scenario.duration_s,
    )
    if plan is not None:
        logger.info("%s", plan.sentence())
    budget = target.budget
    units = ((budget.requests, "requests"), (budget.tokens, "tokens"), (budget.money, "of money"))
    caps = [f"{cap:,} {unit}" for cap, unit in units if cap is not None]
    if caps:
        level = logging.INFO if target.is_local else logging.WARNING
        logger.log(level, "This run can spend up to %s", " and ".join(caps))
    if plan is not None and (exceeded := plan.exceeds(target)):
        logger.warning("The budget will end the run early: %s", " and ".join(exceeded))
