"""The scenario of a locustfile's own user classes, which decide themselves what they send, and when."""

import re
from collections.abc import Mapping

from bltybench.scenario.file.scenario_file import Book
from bltybench.scenario.patterns import Closed, Ladder
from bltybench.scenario.workload import NO_TIME_LIMIT_S, Scenario

MAX_NAME = 60
"""Maximum length of a scenario's name, which is part of the run folder's name."""
MAX_SUMMARY = 200
"""Maximum length of the part of a docstring that is shown."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UNNAMEABLE = re.compile(r"[^a-z0-9_-]+")


def own_scenario(
    book: Book, named: str | None, target: str | None, classes: Mapping[str, str | None]
) -> tuple[str, Scenario]:
    """Return the name and the scenario of user classes, given as names with their docstrings.

    It is a closed loop. A scenario that is ``named`` sets everything but the calls and their times. (So does
    the file's default scenario if it has no mix, because only such classes can run it.) Otherwise the title
    is that of the classes, there is one user, no time limit, and no checks, and the model is one that a
    scenario uses with the target. Raise UserError for an unknown name.
    """
    default = book.scenario(book.default_scenario)
    if named is None and not default.mix and isinstance(default.arrivals, Closed):
        named = book.default_scenario
    if named is not None:
        changes = {"mix": (), "arrivals": Closed(kind="closed")}
        return named, closed_loop(book.scenario(named)).model_copy(update=changes)
    target = target or default.target
    uses_target = (scenario for scenario in (default, *book.scenarios.values()) if scenario.target == target)
    summaries = {name: _summary(docstring) for name, docstring in classes.items()}
    *others, last = summaries
    title = f"{', '.join(others)} and {last}" if others else last
    answers = "\n".join(f"{name}: {summary}" for name, summary in summaries.items() if summary)
    return _name(title), Scenario(
        title=title if others else answers or title,
        answers=answers if others else "",
        target=target,
        model=next(uses_target, default).model,
        duration_s=NO_TIME_LIMIT_S,
        users=1,
        spawn_rate=1.0,
        arrivals=Closed(kind="closed"),
    )


def closed_loop(scenario: Scenario) -> Scenario:
    """Return the scenario as a closed loop. If it was none, ``users`` was something else, so it is 1."""
    arrivals = scenario.arrivals
    if isinstance(arrivals, Closed):
        return scenario
    closed = Closed(kind="closed", think_s=arrivals.think_s if isinstance(arrivals, Ladder) else 0.0)
    return scenario.model_copy(update={"arrivals": closed, "users": 1, "spawn_rate": None})


def _summary(docstring: str | None) -> str:
    first = (docstring or "").strip().partition("\n")[0]
    return first[:MAX_SUMMARY].removesuffix(".")


def _name(title: str) -> str:
    """Return a name for scenario and run folder: ``CuriousUser`` gives ``curious-user``."""
    dashed = _UNNAMEABLE.sub("-", _WORD_START.sub("-", title).lower())
    return dashed.strip("-_")[:MAX_NAME].rstrip("-_") or "own"
