"""The probe of rate limits: sends what the plans say, and leaves what was found beside the run.

Importing this adds its options to Locust's command line.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import locust
from locust import task
from locust.exception import StopUser

from bltybench.limits.experiments.charges_steps import OTHER_MODEL
from bltybench.limits.experiments.registry import QUESTIONS, REQUESTS
from bltybench.limits.findings.conclude import to_record
from bltybench.limits.findings.model import encode
from bltybench.limits.findings.narrative import summary
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst
from bltybench.limits.probe.thresholds import SESSION
from bltybench.limits.session import ProbeSession, enforced
from bltybench.load.client import ChatClient
from bltybench.load.locust_plugin.plugin import PLUGIN
from bltybench.load.probe.executor import ProbeStopped, StepExecutor, apart
from bltybench.load.probe.options import add_arguments, check, task_of, wishes
from bltybench.load.users import ChatUser
from bltybench.runs.folder import find_run, write_atomically
from bltybench.runs.store import load_attempts

logger = logging.getLogger("bltybench")

MESSAGES = [{"role": "user", "content": "Hi"}]
LONG_S = 5.0
"""A wait so long is worth a line, whatever was said before."""
DONE = "probe.json"
"""In a run's folder: the names of the questions that were asked to their ends."""

locust.events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))
locust.events.init.add_listener(lambda environment, **_: PLUGIN.key_names.update(check(environment)))


class LimitProbe(ChatUser):
    """One user that finds out the limits and then ends the run.

    Leaves ``limits.json`` (what was found) and, where something was, ``limits.toml`` (for the sandbox) in the
    run's folder.
    """

    abstract = True
    fixed_count = 1

    def on_start(self) -> None:
        """Prepare the record."""
        context = self.run_context
        self._wishes = wishes(self.environment.parsed_options)
        self._book = ProbeSession(task_of(self._wishes, context.target), context.clock.start_wall_ns / 1e9)
        self._clients: list[ChatClient] = []
        self._tickets = 0
        self._shooter = StepExecutor(context, self._book.rows, self._wishes.second_key)
        self._asking = REQUESTS
        self._said = ""

    @task
    def probe(self) -> None:
        """Play the plans to their ends, or as far as the budget goes."""
        clock, book = self.run_context.clock, self._book
        if self._wishes.resume:
            self._resume(self._wishes.resume)
        logger.info("%s", self._wishes.cost(book.task))
        clock.wait_until(0)
        verdict, stopped = None, ""
        try:
            if REQUESTS in book.task.questions:
                verdict = self._requests()
                self._note(REQUESTS)
            self._inquire(verdict)
        except (ProbeStopped, StopUser) as end:
            stopped = str(end) or "the budget is spent, or the run was stopped"
        finally:
            book.others = self._shooter.attempts
        self._leave(verdict, stopped)
        PLUGIN.finish()
        clock.stopping.wait()
        raise StopUser

    # The limit of requests

    def _requests(self) -> Verdict:
        if REQUESTS in self._book.done:
            logger.info("The limit of requests was found before")
            return apart(self._book.earlier_verdict)
        playing = plan(self._book.aims(), self._now_s())
        burst: Burst | None = next(playing)
        verdict: Verdict | None = None
        while burst is not None:
            got = self._send(burst)
            burst, verdict = _advance(playing, got)
        if verdict is None:
            raise RuntimeError("a plan ends with a verdict")
        return verdict

    def _send(self, burst: Burst) -> Sequence[Observation]:
        """Send one burst and return what was seen."""
        book = self._book
        self._say(burst.purpose, burst.at_s - self._now_s())
        if not self.run_context.clock.wait_until(round((burst.at_s - book.start_s) * 1e9)):
            raise ProbeStopped("the run's time was over")
        first = len(book.rows)
        self._tickets = burst.max_requests
        others = [gevent.spawn(self._lane, lane, first) for lane in range(1, burst.max_in_flight)]
        self._lane(0, first)
        gevent.joinall(others, raise_error=True)
        if burst.confirm_s is not None and book.refused_since(first):
            gevent.sleep(burst.confirm_s)
            self._one(0)
        let_in, refused = book.counts_since(first)
        # While it waits for refusals to end, only their end is news.
        level = logging.INFO if let_in or burst.max_requests > 1 else logging.DEBUG
        logger.log(level, "%s: %d accepted, %d refused", burst.purpose, let_in, refused)
        return book.sights_since(first)

    def _lane(self, lane: int, first: int) -> None:
        while self._tickets > 0 and not self._book.refused_since(first):
            self._tickets -= 1
            self._one(lane)

    def _one(self, lane: int) -> None:
        while len(self._clients) <= lane:
            self._clients.append(ChatClient(self.run_context))
        reply = self._clients[lane].chat(MESSAGES, max_tokens=1, name="probe", prompt_tokens=8)
        if not self._book.add(reply.record):
            raise ProbeStopped(f"{SESSION.max_failures} requests in a row failed: {reply.error}")

    # The other questions

    def _inquire(self, verdict: Verdict | None) -> None:
        book, shooter = self._book, self._shooter
        names = book.unasked()
        if names and verdict is not None and verdict.status in {"always_refused", "nothing_sent"}:
            raise ProbeStopped(f"nothing was let in: {verdict.reason}")
        for name in names:
            if name == "charges" and book.task.other_model is None:
                book.task = replace(book.task, other_model=self._find_model(shooter))
            known = book.known(verdict, sent=shooter.sent, tokens=shooter.tokens)
            self._asking = name
            logger.info("Now: %s", name)
            seen = shooter.play(name, QUESTIONS[name].ask(known, self._now_s()), self._say)
            self._note(name)
            found = QUESTIONS[name].judge(seen, known)
            book.learn(found)
            for answer in found:
                logger.info("%s", answer.says)

    def _find_model(self, shooter: StepExecutor) -> str | None:
        own = self.run_context.scenario.model
        listed = [name for name in shooter.models() if name != own]
        if listed:
            logger.info("%s: %s, of those that are listed", OTHER_MODEL, listed[0])
        return listed[0] if listed else None

    # What both need

    def _note(self, name: str) -> None:
        """Put on record that a question has been asked to its end, for a probe that goes on from here."""
        done = self._book.done
        done.add(name)
        write_atomically(self.run_context.folder.path / DONE, json.dumps(sorted(done)).encode() + b"\n")

    def _resume(self, name: str) -> None:
        """Take in what an interrupted probe saw."""
        folder = find_run(name)
        shift_ns = folder.manifest().clock.wall_ns - self.run_context.clock.start_wall_ns
        attempts = load_attempts(folder)
        self._book.resume(attempts, shift_ns, _read_done(folder.path / DONE))
        said = ", ".join(sorted(self._book.done)) or "nothing yet"
        logger.info("Resuming run %s: %d attempts, found: %s", folder.path.name, len(attempts), said)

    def _now_s(self) -> float:
        return self._book.start_s + self.run_context.clock.now_ns() / 1e9

    def _say(self, what: str, wait_s: float) -> None:
        """Let who watches know which step comes next, and when; steps like the last one are not logged."""
        if not what:
            return
        place = f"{self._asking}: {what}"
        if wait_s > 1:
            due = time.strftime("%H:%M:%S", time.localtime(time.time() + wait_s))
            PLUGIN.report_activity(f"{place}, at {due}; {self._sent()} requests so far")
            if place != self._said or wait_s > LONG_S:
                logger.info("In %.0f s: %s", wait_s, what)
        else:
            PLUGIN.report_activity(f"{place}; {self._sent()} requests so far")
        self._said = place

    def _sent(self) -> int:
        return len(self._book.rows) + self._shooter.sent

    def _leave(self, verdict: Verdict | None, stopped: str) -> None:
        """Write and say what was found."""
        folder = self.run_context.folder.path
        findings = apart(lambda: self._book.findings(verdict))
        write_atomically(folder / "limits.json", encode(to_record(findings, folder.name, stopped or None)))
        text = enforced(findings, folder.name)
        if text is not None:
            write_atomically(folder / "limits.toml", text.encode())
        if stopped:
            logger.warning("The probe stopped early: %s", stopped)
        for line in summary(findings):
            logger.info("%s", line)


def _read_done(path: Path) -> list[str]:
    """Return which questions an earlier probe had asked to their ends; none where it did not come so far."""
    try:
        names = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _advance(playing: Any, got: Sequence[Observation]) -> tuple[Burst | None, Verdict | None]:
    """Ask the plan for the next burst, or its verdict, outside the event loop: fitting takes a while."""

    def step() -> tuple[Burst | None, Verdict | None]:
        try:
            return playing.send(got), None
        except StopIteration as end:
            return None, end.value

    return apart(step)
