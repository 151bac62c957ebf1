"""What a run says on the terminal besides its progress: mistakes, and what it is about to do."""

from __future__ import annotations

import logging
import sys

from bltybench.errors import UserError
from bltybench.load.run.run import Run
from bltybench.scenario.plan import Plan

logger = logging.getLogger("bltybench")

COULD_NOT_RUN = 2


def complain(error: UserError) -> int:
    """Print what is wrong and return the exit code for it."""
    print(f"bltybench: {error}", file=sys.stderr, flush=True)
    return COULD_NOT_RUN


def announce(run: Run, plan: Plan | None) -> None:
    """Say what will be sent where, and what it may cost.

    Without a ``plan`` only the locustfile knows what it sends.
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
        logger.log(level, "This run may spend up to %s", " and ".join(caps))
    if plan is not None and (exceeded := plan.exceeds(target)):
        logger.warning("The budget will end it early: %s", " and ".join(exceeded))
