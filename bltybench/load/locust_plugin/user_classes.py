"""The classes of a locustfile: its users, which are recorded or not, and its load shape."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import gevent
from locust.shape import LoadTestShape
from locust.user.users import User

from bltybench.errors import UserError

HOLD_INTERVAL_S = 0.1
"""Seconds between two resets of a load shape's time before the load begins."""


class RecordedUser(User):
    """Base of the user classes whose calls are recorded."""

    abstract = True

    scenario: ClassVar[str | None] = None
    """Scenario in scenarios.toml, unless ``--scenario`` names another."""
    replays: ClassVar[bool] = False
    """Whether the scenario decides what its users send, and when."""
    measures_limits: ClassVar[bool] = False
    """Whether its users measure the rate limits, so that no other request may count against them."""


class UserClasses:
    """The user classes of a run, sorted by name."""

    def __init__(self, classes: Iterable[type[User]]) -> None:
        ordered = sorted(classes, key=lambda cls: cls.__name__)
        self.recorded = [cls for cls in ordered if issubclass(cls, RecordedUser)]
        self.unrecorded = [cls for cls in ordered if not issubclass(cls, RecordedUser)]
        self.replays = any(cls.replays for cls in self.recorded)
        """Whether the scenario decides what is sent, though other classes may add to it."""
        self.measure_limits = any(cls.measures_limits for cls in self.recorded)
        """Whether no other request may count against the rate limits."""

    def require_tasks(self) -> None:
        """Raise UserError if a recorded class has none. Locust would log that repeatedly for each user."""
        without = [cls.__name__ for cls in self.recorded if not cls.tasks]
        if without:
            raise UserError(
                f"{', '.join(without)}: no tasks, or none that --tags and --exclude-tags select",
                remedy="mark methods with @task, or the class with abstract = True",
            )

    @property
    def docstrings(self) -> dict[str, str | None]:
        """The names of the recorded classes with their docstrings."""
        return {cls.__name__: cls.__doc__ for cls in self.recorded}

    @property
    def scenario(self) -> str | None:
        """The scenario that the classes name. Raises UserError if they name different ones."""
        return _only({cls.scenario for cls in self.recorded}, "name different scenarios", "--scenario")

    @property
    def host(self) -> str | None:
        """The ``host`` of the recorded classes. Raises UserError if they have different ones."""
        return _only({cls.host for cls in self.recorded}, "have different hosts", "--host")


def uses_name(cls: type, name: str) -> bool:
    """Return whether the class, or a task set in it, has a method that uses an attribute called ``name``."""
    for value in vars(cls).values():
        code = getattr(value, "__code__", None)
        if name in code.co_names if code else isinstance(value, type) and uses_name(value, name):
            return True
    return False


def hold_shape(shape: LoadTestShape, now_s: Callable[[], float]) -> None:
    """Let a shape's time begin with the load, on whose axis ``now_s`` is. Runs as a greenlet.

    Locust lets it begin before the processes have created their users.
    """
    while (left_s := -now_s()) > 0:
        gevent.sleep(min(left_s, HOLD_INTERVAL_S))
        shape.reset_time()


def _only(values: Iterable[str | None], differ: str, option: str) -> str | None:
    named = sorted(value for value in values if value)
    if len(named) > 1:
        raise UserError(f"the user classes {differ}: {', '.join(named)}", remedy=f"choose one with {option}")
    return named[0] if named else None
