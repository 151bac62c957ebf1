"""The probe of rate limits: sends what the plans say, and leaves what was found beside the run.

Importing this adds its options to Locust's command line.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import gevent
import locust
from locust import task
from locust.exception import StopUser

from bltybench.limits.answer import Answer
from bltybench.limits.charges_question import OTHER_MODEL
from bltybench.limits.evidence import Row, accepted, refusal_status, sights_of
from bltybench.limits.finding import Findings, find
from bltybench.limits.fit import Verdict
from bltybench.limits.inquiry import ALL, QUESTIONS, REQUESTS, by_question
from bltybench.limits.known import Known
from bltybench.limits.plan import Aims, Burst, plan
from bltybench.limits.settings import limits_toml
from bltybench.limits.sights import Sight
from bltybench.load.client import ChatClient
from bltybench.load.plugin import PLUGIN
from bltybench.load.probe_options import add_arguments, check, wishes
from bltybench.load.probe_shots import ProbeStopped, Shooter, as_row
from bltybench.load.user import ChatUser
from bltybench.runs.attempt import Outcome
from bltybench.runs.folder import find_run, write_atomically
from bltybench.runs.store import read_attempts

logger = logging.getLogger("bltybench")

T = TypeVar("T")

MESSAGES = [{"role": "user", "content": "Hi"}]
HOPELESS = 5
"""So many answers in a row that are neither let in nor refused for the rate end the probe."""
REQUESTS_SHARE = 0.6
"""Of the budget, what the limit of requests may take where there are other questions."""
MOST_FOR_REQUESTS = 600

locust.events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))
locust.events.init.add_listener(lambda environment, **_: check(environment))


class LimitProbe(ChatUser):
    """One user that finds out the limits and then ends the run.

    Leaves ``limits.json`` (what was found) and, where something was, ``limits.toml`` (for the sandbox) in the
    run's folder.
    """

    abstract = True
    fixed_count = 1

    def on_start(self) -> None:
        """Prepare the record."""
        self._wishes = wishes(self.environment.parsed_options)
        self._rows: list[Row] = []
        """Of this run, all experiments together."""
        self._clients: list[ChatClient] = []
        self._earlier: dict[str | None, list[Row]] = {None: []}
        """Of the run that is resumed, on this run's axis of time."""
        self._done: set[str] = set()
        """Questions that were asked to their ends, by the run that is resumed or by this one."""
        self._unclear = 0
        self._tickets = 0

    @task
    def probe(self) -> None:
        """Play the plans to their ends, or as far as the budget goes."""
        session, asked = self.session, self._wishes
        if asked.resume:
            self._read_earlier(asked.resume)
        self._budget = _least(asked.budget, session.target.budget.requests)
        self._tokens = _least(asked.tokens, session.target.budget.tokens)
        logger.info("%s", asked.cost(self._budget, self._tokens))
        session.wait_until(0)
        verdict, stopped = None, ""
        shooter = Shooter(session, asked.second_key)
        try:
            if REQUESTS in asked.questions:
                verdict = self._requests()
                self._note(REQUESTS)
            self._inquire(shooter, verdict)
        except (ProbeStopped, StopUser) as end:
            stopped = str(end) or "the budget is spent, or the run was stopped"
        finally:
            self._rows += shooter.rows
        self._leave(verdict, stopped)
        PLUGIN.finish(session)
        session.stopping.wait()
        raise StopUser

    # The limit of requests

    def _requests(self) -> Verdict:
        if REQUESTS in self._done:
            logger.info("The limit of requests was found before")
            rows = self._earlier[None]
            return _apart(lambda: find(rows, self._start_s(), self._per_min()).verdict)
        playing = plan(self._aims(), self._now_s())
        burst: Burst | None = next(playing)
        verdict: Verdict | None = None
        while burst is not None:
            got = self._send(burst)
            burst, verdict = _advance(playing, got)
        if verdict is None:
            raise RuntimeError("a plan ends with a verdict")
        return verdict

    def _per_min(self) -> int | None:
        return self.session.target.limits.requests_per_min

    def _aims(self) -> Aims:
        asked, per_min = self._wishes, self._per_min()
        period_s = asked.period_s or (60.0 if per_min is not None else None)
        others = len(asked.questions) > 1
        most = min(MOST_FOR_REQUESTS, round(REQUESTS_SHARE * self._budget)) if others else self._budget
        return Aims(
            budget=most,
            quick=asked.quick,
            period_s=period_s,
            limit=None if per_min is None or period_s is None else max(1, round(per_min * period_s / 60)),
            earlier=tuple(sights_of(self._earlier[None], self._start_s())),
        )

    # The other questions

    def _inquire(self, shooter: Shooter, verdict: Verdict | None) -> None:
        names = [name for name in QUESTIONS if name in self._wishes.questions and name not in self._done]
        if not names:
            return
        if verdict is not None and verdict.status in {"always_refused", "nothing_sent"}:
            raise ProbeStopped(f"nothing was let in: {verdict.reason}")
        known = self._known()
        if verdict is not None:
            known = known.with_limit(verdict, self._per_min())
        for name in names:
            known = replace(
                known,
                requests_left=self._budget - len(self._rows) - shooter.sent,
                tokens_left=self._tokens - shooter.tokens,
            )
            if name == "charges" and known.other_model is None:
                known = replace(known, other_model=self._find_model(shooter))
            logger.info("Now: %s", name)
            seen = shooter.play(name, QUESTIONS[name].ask(known, self._now_s()), _say)
            self._note(name)
            found = QUESTIONS[name].judge(seen, known)
            known = replace(
                known, slots=next((_whole(each) for each in found if each.question == SLOTS), known.slots)
            )
            for answer in found:
                logger.info("%s", answer.says)

    def _known(self) -> Known:
        asked, limits = self._wishes, self.session.target.limits
        took = [(row["end_ns"] - row["sent_ns"]) / 1e9 for row in self._rows if row["outcome"] == Outcome.OK]
        return Known(
            requests_per_min=limits.requests_per_min,
            tokens_per_min=limits.tokens_per_min,
            concurrency=limits.concurrency,
            hint_s=asked.period_s,
            latency_s=sorted(took)[len(took) // 2] if took else 0.5,
            second_key=asked.second_key is not None,
            other_model=asked.model,
            with_401=asked.with_401,
        )

    def _find_model(self, shooter: Shooter) -> str | None:
        own = self.session.scenario.model
        listed = [name for name in shooter.models() if name != own]
        if listed:
            logger.info("%s: %s, of those that are listed", OTHER_MODEL, listed[0])
        return listed[0] if listed else None

    # What both need

    def _note(self, name: str) -> None:
        """Put on record that a question has been asked to its end, for a probe that goes on from here."""
        self._done.add(name)
        write_atomically(self.session.folder.path / DONE, json.dumps(sorted(self._done)).encode() + b"\n")

    def _read_earlier(self, name: str) -> None:
        """Take in what an interrupted probe saw."""
        folder = find_run(name)
        manifest = folder.manifest()
        shift_ns = manifest.clock.wall_ns - self.session.job.clock.wall_ns
        rows = [_shifted(row, shift_ns) for row in read_attempts(folder).to_pylist()]
        self._earlier = by_question(rows)
        self._done = _read_done(folder.path / DONE)
        # What an experiment had begun to ask is asked again; the limit of requests goes on from what it saw.
        self._earlier = {
            name: own for name, own in self._earlier.items() if name is None or name in self._done
        }
        said = ", ".join(sorted(self._done)) or "nothing yet"
        logger.info("Resuming run %s: %d attempts, found: %s", folder.path.name, len(rows), said)

    def _start_s(self) -> float:
        return self.session.job.clock.wall_ns / 1e9

    def _now_s(self) -> float:
        return self._start_s() + self.session.now_ns() / 1e9

    def _send(self, burst: Burst) -> Sequence[Sight]:
        """Send one burst and return what was seen."""
        _say(burst.says, burst.at_s - self._now_s())
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
        session, asked = self.session, self._wishes
        rows = [*(row for each in self._earlier.values() for row in each), *self._rows]
        names = [name for name in QUESTIONS if name in asked.questions]

        def conclude() -> Findings:
            return find(rows, self._start_s(), self._per_min(), verdict, known=self._known(), asked=names)

        findings = _apart(conclude)
        document = {"run_id": session.folder.path.name, "stopped": stopped or None, **findings.to_dict()}
        write_atomically(session.folder.path / "limits.json", json.dumps(document, indent=2).encode() + b"\n")
        best = findings.verdict.best if findings.verdict.status == "found" else None
        if best is not None or any(
            each.question in ENFORCED and each.value is not None for each in findings.answers
        ):
            text = limits_toml(best, session.folder.path.name, findings.answers)
            write_atomically(session.folder.path / "limits.toml", text.encode())
        if stopped:
            logger.warning("The probe stopped early: %s", stopped)
        for line in findings.sentences():
            logger.info("%s", line)


SLOTS = "concurrency_limit"
DONE = "probe.json"
"""In a run's folder: the names of the questions that were asked to their ends."""
ENFORCED = {SLOTS, "token_limit"}
"""Answers that make a limits.toml worth while by themselves."""


def _whole(answer: Answer) -> int | None:
    return int(answer.value) if isinstance(answer.value, int) else None


def _least(wanted: int, cap: int | None) -> int:
    return wanted if cap is None else min(wanted, cap)


def _say(what: str, wait_s: float) -> None:
    if what and wait_s > 1:
        logger.info("In %.0f s: %s", wait_s, what)


def _shifted(row: dict[str, Any], shift_ns: int) -> Row:
    """Return an attempt of another run on this run's axis of time."""
    moments = (
        "due_ns",
        "sent_ns",
        "headers_ns",
        "first_token_ns",
        "first_output_ns",
        "last_token_ns",
        "end_ns",
    )
    return row | {name: row[name] + shift_ns for name in moments if row[name] is not None}


def _read_done(path: Path) -> set[str]:
    """Return which questions an earlier probe had asked to their ends; none where it did not come so far."""
    try:
        names = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return set()
    return {name for name in names if name in ALL} if isinstance(names, list) else set()


def _advance(playing: Any, got: Sequence[Sight]) -> tuple[Burst | None, Verdict | None]:
    """Ask the plan for the next burst, or its verdict, outside the event loop: fitting takes a while."""

    def step() -> tuple[Burst | None, Verdict | None]:
        try:
            return playing.send(got), None
        except StopIteration as end:
            return None, end.value

    return _apart(step)


def _apart(work: Callable[[], T]) -> T:
    """Do work that takes a while outside the event loop."""
    done: T = gevent.get_hub().threadpool.apply(work)
    return done


def _counts(rows: Sequence[Row], status: int | None) -> str:
    refused = sum(accepted(row, status) is False for row in rows)
    return f"{len(rows) - refused} accepted, {refused} refused"
