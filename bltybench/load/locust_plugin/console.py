"""What a run prints on the terminal: errors, what it will send and spend, and its progress."""

import logging
import shutil
import sys

import gevent

from bltybench.errors import UserError
from bltybench.load.run.run import Run
from bltybench.scenario.plan import Plan, Plans
from bltybench.scenario.target import Target

logger = logging.getLogger("bltybench")

COULD_NOT_RUN = 2
"""Exit code of a run that could not start."""
INTERVAL_S = 1.0
"""Seconds between two updates on a terminal."""
PIPED_INTERVAL_S = 15.0
"""Seconds between two lines if the output is not a terminal."""
CLEAR_LINE = "\r\x1b[2K"
"""Erases the line of a terminal in which the cursor is."""


def print_error(error: UserError) -> int:
    """Print an error and return the exit code for it."""
    start = CLEAR_LINE if sys.stderr.isatty() else ""
    print(f"{start}bltybench: {error}", file=sys.stderr, flush=True)
    return COULD_NOT_RUN


def print_summary(text: str, *, json: bool) -> None:
    """Print the report's summary. With ``json``, stdout contains Locust's JSON only."""
    print(text, end="", file=sys.stderr if json else sys.stdout, flush=True)


def announce(run: Run, plans: Plans | None) -> None:
    """Log the targets, the maximum spend, and the plans, if not only the locustfile decides what is sent."""
    resolved, targets = run.resolved, run.resolved.targets
    logger.info(
        "Run %s: scenario %s on %s %s",
        run.folder.path.name,
        resolved.name,
        ", ".join(target.base_url for target in targets.values()),
        "until it ends or is stopped" if run.duration_s is None else f"for {run.duration_s:g} s",
    )
    if run.unrecorded:
        logger.info("Not recorded, because they don't derive from ChatUser: %s", ", ".join(run.unrecorded))
    for name, target in targets.items():
        about = f"Target '{name}': " if resolved.others else ""
        _announce_spend(target, None if plans is None else plans[name], about)
        if plans is not None and plans[name] is None:
            logger.info("%sgets only calls that fail elsewhere", about)


def _announce_spend(target: Target, plan: Plan | None, about: str) -> None:
    if plan is not None:
        logger.info("%s%s", about, plan.sentence())
    budget = target.budget
    units = ((budget.requests, "requests"), (budget.tokens, "tokens"), (budget.money, "of money"))
    caps = [f"{cap:,} {unit}" for cap, unit in units if cap is not None]
    if caps:
        level = logging.INFO if target.is_local else logging.WARNING
        logger.log(level, "%sThis run can spend up to %s", about, " and ".join(caps))
    if plan is not None and (exceeded := plan.exceeds(target)):
        logger.warning("%sThe budget will end the run early: %s", about, " and ".join(exceeded))


def show_progress(run: Run) -> None:
    """Update the line on a terminal, or print a new one now and then elsewhere. Runs as a greenlet."""
    on_terminal = sys.stderr.isatty()
    handlers = _handlers_of_stderr() if on_terminal else []
    for handler in handlers:
        handler.addFilter(_clear_line)
    try:
        while True:
            gevent.sleep(INTERVAL_S if on_terminal else PIPED_INTERVAL_S)
            line = run.live.line(run.now_s(), run.duration_s)
            if on_terminal:
                width = shutil.get_terminal_size().columns
                sys.stderr.write(CLEAR_LINE + line[: width - 1])
            else:
                sys.stderr.write(line + "\n")
            sys.stderr.flush()
    finally:
        for handler in handlers:
            handler.removeFilter(_clear_line)
        if on_terminal:
            sys.stderr.write("\n")
            sys.stderr.flush()


def _handlers_of_stderr() -> list[logging.Handler]:
    """Return the handlers that log to the terminal. Locust's own loggers share them."""
    handlers = logging.getLogger().handlers
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]


def _clear_line(_: logging.LogRecord) -> bool:
    """Let a message replace the progress line instead of following it on the same line."""
    sys.stderr.write(CLEAR_LINE)
    return True
