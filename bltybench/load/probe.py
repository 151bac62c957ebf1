"""The probe of rate limits: sends what the plan says, and leaves what was found beside the run.

Importing this adds its options to Locust's command line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import gevent
import locust
from locust import task
from locust.argument_parser import LocustArgumentParser
from locust.exception import StopUser

from bltybench.limits.evidence import Row, accepted, refusal_status, sights_of
from bltybench.limits.finding import Findings, find
from bltybench.limits.fit import Verdict
from bltybench.limits.plan import QUICK_BUDGET, Aims, Burst, plan
from bltybench.limits.settings import limits_toml
from bltybench.limits.sights import Sight
from bltybench.load.client import ChatClient
from bltybench.load.plugin import PLUGIN
from bltybench.load.user import ChatUser
from bltybench.runs.attempt import Attempt, Outcome
from bltybench.runs.folder import find_run, write_atomically
from bltybench.runs.store import read_attempts

logger = logging.getLogger("bltybench")

MESSAGES = [{"role": "user", "content": "Hi"}]
HOPELESS = 5
"""So many answers in a row that are neither let in nor refused for the rate end the probe."""


class ProbeStopped(Exception):  # noqa: N818 - an end, not always an error
    """The probe cannot go on; the message says why."""


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add the probe's options to Locust's."""
    group = parser.add_argument_group("bltybench: the probe of rate limits")
    group.add_argument(
        "--quick",
        action="store_true",
        help=f"Limit, period and algorithm only: at most {QUICK_BUDGET} requests within two periods.",
    )
    group.add_argument("--probe-budget", type=int, default=600, help="The most requests. Default: 600")
    group.add_argument(
        "--probe-period",
        type=float,
        default=None,
        help="The period in seconds, where it is known beforehand.",
    )
    group.add_argument(
        "--probe-resume", default="", help="A run of the probe that was interrupted: go on from what it saw."
    )


locust.events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))


class LimitProbe(ChatUser):
    """One user that finds out the rate limit and then ends the run.

    Leaves ``limits.json`` (what was found) and, where it was found, ``limits.toml`` (for the sandbox) in the
    run's folder.
    """

    abstract = True
    fixed_count = 1

    def on_start(self) -> None:
        """Prepare the record."""
        self._rows: list[Row] = []
        self._clients: list[ChatClient] = []
        self._earlier: list[Sight] = []
        self._unclear = 0
        self._tickets = 0

    @task
    def probe(self) -> None:
        """Play the plan to its end, or as far as the budget goes."""
        session = self.session
        aims = self._aims()
        logger.info("The probe may send up to %d requests", aims.most)
        session.wait_until(0)
        playing = plan(aims, self._now_s())
        verdict, stopped = None, ""
        try:
            burst: Burst | None = next(playing)
            while burst is not None:
                got = self._send(burst)
                burst, verdict = _advance(playing, got)
        except (ProbeStopped, StopUser) as end:
            stopped = str(end) or "the budget is spent, or the run was stopped"
        self._leave(verdict, stopped)
        PLUGIN.finish(session)
        session.stopping.wait()
        raise StopUser

    def _aims(self) -> Aims:
        options = self.environment.parsed_options
        limits, budget = self.session.target.limits, self.session.target.budget
        most = options.probe_budget if budget.requests is None else min(options.probe_budget, budget.requests)
        per_min = limits.requests_per_min
        period_s = options.probe_period or (60.0 if per_min is not None else None)
        if options.probe_resume:
            folder = find_run(options.probe_resume)
            rows = read_attempts(folder).to_pylist()
            self._earlier = sights_of(rows, folder.manifest().clock.wall_ns / 1e9)
        return Aims(
            budget=most,
            quick=options.quick,
            period_s=period_s,
            limit=None if per_min is None or period_s is None else max(1, round(per_min * period_s / 60)),
            earlier=tuple(self._earlier),
        )

    def _start_s(self) -> float:
        return self.session.job.clock.wall_ns / 1e9

    def _now_s(self) -> float:
        return self._start_s() + self.session.now_ns() / 1e9

    def _send(self, burst: Burst) -> Sequence[Sight]:
        """Send one burst and return what was seen."""
        wait_s = burst.at_s - self._now_s()
        if wait_s > 1:
            logger.info("In %.0f s: %s", wait_s, burst.says)
        if not self.session.wait_until(round((burst.at_s - self._start_s()) * 1e9)):
            raise ProbeStopped("the run's time was over")
        first = len(self._rows)
        self._tickets = burst.cap
        others = [gevent.spawn(self._lane, lane, first) for lane in range(1, burst.width)]
        self._lane(0, first)
        gevent.joinall(others, raise_error=True)
        if burst.confirm_s is not None and self._refused_since(first):
            gevent.sleep(burst.confirm_s)
            self._one(0)
        rows = self._rows
        status = refusal_status(rows)
        new = rows[first:]
        # What counts as a refusal, and how long one takes, is judged by all that was seen so far.
        seen = sights_of(rows, self._start_s())
        since_s = (
            self._start_s()
            + min((row["sent_ns"] for row in new if row["sent_ns"] is not None), default=0) / 1e9
        )
        logger.info("%s: %s", burst.says, _counts(new, status))
        return [sight for sight in seen if sight.sent_s >= since_s - 1e-9]

    def _lane(self, lane: int, first: int) -> None:
        while self._tickets > 0 and not self._refused_since(first):
            self._tickets -= 1
            self._one(lane)

    def _refused_since(self, first: int) -> bool:
        status = refusal_status(self._rows)
        return any(accepted(row, status) is False for row in self._rows[first:])

    def _one(self, lane: int) -> None:
        while len(self._clients) <= lane:
            self._clients.append(ChatClient(self.session, self.session.next_user()))
        reply = self._clients[lane].chat(MESSAGES, max_tokens=1, name="probe", prompt_tokens=8)
        row = as_row(reply.record)
        self._rows.append(row)
        failed = reply.outcome in {Outcome.CLIENT_ERROR, Outcome.TRANSPORT_ERROR, Outcome.TIMEOUT}
        # A 403 may be a refusal.
        unclear = failed and accepted(row, refusal_status(self._rows)) is not False
        self._unclear = self._unclear + 1 if unclear else 0
        if self._unclear >= HOPELESS:
            raise ProbeStopped(f"{HOPELESS} requests in a row failed: {reply.error}")

    def _leave(self, verdict: Verdict | None, stopped: str) -> None:
        """Write and say what was found."""
        session = self.session
        documented = session.target.limits.requests_per_min

        def conclude() -> Findings:
            return find(self._rows, self._start_s(), documented, verdict)

        findings: Findings = gevent.get_hub().threadpool.apply(conclude)
        document = {"run_id": session.folder.path.name, "stopped": stopped or None, **findings.to_dict()}
        write_atomically(session.folder.path / "limits.json", json.dumps(document, indent=2).encode() + b"\n")
        best = findings.verdict.best
        if best is not None and findings.verdict.status == "found":
            text = limits_toml(best, self.session.folder.path.name)
            write_atomically(session.folder.path / "limits.toml", text.encode())
        if stopped:
            logger.warning("The probe stopped early: %s", stopped)
        for line in findings.sentences():
            logger.info("%s", line)


def as_row(record: Attempt) -> Row:
    """Return an attempt with all its columns, as the store gives them back."""
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _advance(playing: Any, got: Sequence[Sight]) -> tuple[Burst | None, Verdict | None]:
    """Ask the plan for the next burst, or its verdict, outside the event loop: fitting takes a while."""

    def step() -> tuple[Burst | None, Verdict | None]:
        try:
            return playing.send(got), None
        except StopIteration as end:
            return None, end.value

    found: tuple[Burst | None, Verdict | None] = gevent.get_hub().threadpool.apply(step)
    return found


def _counts(rows: Sequence[Row], status: int | None) -> str:
    refused = sum(accepted(row, status) is False for row in rows)
    return f"{len(rows) - refused} accepted, {refused} refused"
