"""What a run says on the terminal besides its progress: mistakes, and what it is about to do."""

from __future__ import annotations

import logging
import sys

from bltybench.errors import UserError
from bltybench.load.run import Run

logger = logging.getLogger("bltybench")

COULD_NOT_RUN = 2


def complain(error: UserError) -> int:
    """Print what is wrong and return the exit code for it."""
    print(f"bltybench: {error}", file=sys.stderr, flush=True)
    return COULD_NOT_RUN


def announce(run: Run) -> None:
    """Say what will be sent where, and beyond this machine what it may cost."""
    resolved, target = run.resolved, run.resolved.target
    logger.info(
        "Run %s: scenario %s on %s for %g s",
        run.folder.path.name,
        resolved.name,
        target.base_url,
        resolved.scenario.duration_s,
    )
    if not target.is_local:
        caps = [
            f"{target.budget.requests:,} requests" if target.budget.requests is not None else "",
            f"{target.budget.tokens:,} tokens" if target.budget.tokens is not None else "",
        ]
        logger.warning("This run may spend up to %s", " and ".join(cap for cap in caps if cap))
