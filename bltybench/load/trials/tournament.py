"""The tournament at work: one client policy after another, each a stage of the run."""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import gevent
import msgspec

from bltybench.limits.models.families import FAMILIES
from bltybench.load.trials.owner import TrialOwner
from bltybench.load.trials.worker import MAX_SETTLE_S, TrialOrder
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.trials.tournament import PolicyStage, TournamentCourse
from bltybench.scenario.target import RateLimit, SandboxLimits
from bltybench.scenario.trials.tournament import Tournament

logger = logging.getLogger("bltybench")

UNKNOWN_PAUSE_S = 60.0
"""Wait between policies if neither a limit nor a response tells when the limits refill, in seconds."""
PAUSE_MARGIN_S = 0.5
"""Time by which a wait exceeds that of the refill, in seconds: clocks of servers differ from ours."""


class Pause(NamedTuple):
    """A wait for the limits to refill."""

    seconds: float
    reason: str


class TournamentOwner(TrialOwner):
    """Gives each policy its turn, and lets the limits refill in between."""

    def __init__(
        self,
        tournament: Tournament,
        limits: Mapping[str, SandboxLimits],
        folder: RunFolder,
        *,
        exact: bool,
        workers: int,
        now_s: Callable[[], float],
        show: Callable[[str], None],
        start_trial: Callable[[TrialOrder], None],
    ) -> None:
        """``limits`` are those to keep at each target. They are ``exact`` unless they are only documented."""
        super().__init__(workers, now_s, show, start_trial)
        self._tournament, self._folder = tournament, folder
        self._limits = list(limits.values())
        self._exact = exact and len(self._limits) == 1
        windows = [limit for one in self._limits for limit in _windows(one)]
        # Limits of a day, for example, can't refill in between.
        self._refilling = [limit for limit in windows if refill_s(limit) <= tournament.max_pause_s]
        self._period_s = max((limit.period_s for limit in self._refilling), default=None)
        self._stages: list[PolicyStage] = []

    def run(self) -> None:
        """Give every policy its turn. Runs as a greenlet."""
        self.ready.wait()
        self._write(None)
        pause = Pause(0.0, "none: it is the first policy")
        for name in self._tournament.policies:
            if pause.seconds:
                logger.info("Waiting %.0f s for the limits to refill: %s", pause.seconds, pause.reason)
                self._show(f"waiting {pause.seconds:.0f} s for the limits to refill")
                gevent.sleep(pause.seconds)
            ended = self._give_turn(name, pause)
            if ended is not None:
                self.end(ended)
                return
            logger.info("%s", self._stages[-1].sentence())
            self._write(None)
            pause = self._pause()
        self.end("completed")

    def end(self, why: str) -> None:
        """Store the course of a tournament that ended."""
        self.ended = why
        self._write(why)

    def _give_turn(self, name: str, pause: Pause) -> str | None:
        """Let a policy send its calls. Return why the tournament ends; None if it continues."""
        begin_s, sent_before = self._next_begin_s(), self._sent
        order = TrialOrder(
            number=self._number, stage=name, begin_s=begin_s, end_s=begin_s + self._tournament.stage_s
        )
        self._show(f"{name}, policy {self._number} of {len(self._tournament.policies)}")
        self._start_trial(order)
        if not self._listen(order.end_s + self._tournament.max_drain_s + MAX_SETTLE_S):
            return "worker lost"
        if any(report.shortfall for report in self._reports):
            return "budget"
        stage = PolicyStage(
            stage=name,
            pause_s=pause.seconds,
            pause_reason=pause.reason,
            begin_s=order.begin_s,
            end_s=order.end_s,
            drained_s=self._now_s(),
            sent=self._sent - sent_before,
            settled=all(report.settled for report in self._reports if report.done),
            no_free_user=sum(report.late for report in self._reports),
        )
        self._stages.append(stage)
        return None

    def _pause(self) -> Pause:
        """Return how long to wait before the next policy, from now on."""
        announced_s = max((report.refills_s or 0.0 for report in self._reports), default=0.0) - self._now_s()
        known_s = max((refill_s(limit) for limit in self._refilling), default=0.0)
        if announced_s <= 0 and known_s <= 0 and not self._exact:
            longest = Pause(UNKNOWN_PAUSE_S, "no limit is known, and no response announced a reset")
        elif announced_s > known_s:
            longest = Pause(announced_s, "a response announced that a limit refills then")
        else:
            longest = Pause(known_s, "the known limits have refilled by then")
        if longest.seconds > self._tournament.max_pause_s:
            return Pause(self._tournament.max_pause_s, f"max_pause_s, although {longest.reason}")
        if not longest.seconds:
            return longest
        wait_s = longest.seconds + PAUSE_MARGIN_S
        if self._period_s is not None:
            # Windows of the server's clock must end at the same times after the beginning of each stage.
            off_s = self._now_s() + wait_s + self._lead_s - self._stages[0].begin_s
            wait_s += -off_s % self._period_s
        return longest._replace(seconds=wait_s)

    def _write(self, ended: str | None) -> None:
        course = TournamentCourse(
            stage_s=self._tournament.stage_s,
            policies=list(self._tournament.policies),
            limits=self._limits[0].model_dump(mode="json") if self._exact else None,
            period_s=self._period_s,
            ended=ended,
            stages=self._stages,
        )
        text = msgspec.json.format(msgspec.json.encode(course), indent=2)
        write_atomically(self._folder.tournament_json, text)


def _windows(limits: SandboxLimits) -> list[RateLimit]:
    return [limit for first in limits.per_period.values() for limit in first.chain()]


def refill_s(limit: RateLimit) -> float:
    """Return the time in which a limit refills if nothing is sent, without those that are its ``also``."""
    # A counter still counts a request of the previous window.
    periods = 2 if FAMILIES[limit.algorithm].kind == "counter" else 1
    full = max(limit.limit, limit.burst or 0, limit.queue or 0) / limit.limit
    return limit.period_s * max(periods, full) + (limit.ban_s or 0.0)
