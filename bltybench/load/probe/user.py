"""The rate-limit probe as a Locust user. Importing this adds the probe's options to Locust's command line."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import gevent
import locust
import msgspec
from locust import task
from locust.exception import StopUser

from bltybench.errors import UserError
from bltybench.limits.experiments.charges_steps import OTHER_MODEL
from bltybench.limits.experiments.registry import EXPERIMENTS, REQUESTS
from bltybench.limits.findings.conclude import to_record
from bltybench.limits.findings.model import encode
from bltybench.limits.findings.narrative import summary
from bltybench.limits.fit.result import Verdict
from bltybench.limits.observations.classify import Decision, classify
from bltybench.limits.observations.observation import Observation
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst
from bltybench.limits.probe.thresholds import CONTEXT, PLAN, SESSION
from bltybench.limits.session import RECORD_FILE, ProbeRecord, ProbeSession, ProbeTask, limits_toml_of
from bltybench.load.client import ChatClient
from bltybench.load.locust_plugin.plugin import PLUGIN
from bltybench.load.probe.executor import (
    UNPAID,
    ProbeStopped,
    StepExecutor,
    run_in_thread,
    send_in_thread,
    why_stopped,
)
from bltybench.load.probe.options import (
    add_arguments,
    check_options,
    read_second_key,
    read_task,
    resumed_run,
)
from bltybench.load.users import ChatUser
from bltybench.runs.folder import RunFolder, write_atomically
from bltybench.runs.store import load_attempts, readable

logger = logging.getLogger("bltybench")

MESSAGES = [{"role": "user", "content": "Hi"}]
LONG_WAIT_S = 5.0
"""Waits longer than this are logged even if the previous step had the same purpose."""

locust.events.init_command_line_parser.add_listener(lambda parser, **_: add_arguments(parser))
locust.events.init.add_listener(lambda environment, **_: PLUGIN.key_names.update(check_options(environment)))


class LimitProbe(ChatUser):
    """One user that measures the limits and then ends the run.

    It writes ``limits.json`` (the findings) to the run's directory, and ``limits.toml`` (settings for the
    sandbox) if it found a limit.
    """

    abstract = True
    fixed_count = 1
    measures_limits = True

    def on_start(self) -> None:
        """Read the options and create the session."""
        context, self._options = self.run_context, self.environment.parsed_options
        context.clock.wait_until_known()
        task = read_task(self._options, context.upstream.target)
        self._session = ProbeSession(task, context.clock.start_wall_ns / 1e9)
        self._executor = StepExecutor(context, self._session.attempts, read_second_key(self._options))
        self._clients: list[ChatClient] = []
        self._requests_left = 0
        """Requests left in the current burst."""
        self._question = REQUESTS
        self._activity = ""
        self._resumed: str | None = None
        """ID of the run that this one resumes."""
        self._resumed_done: frozenset[str] = frozenset()

    @task
    def probe(self) -> None:
        """Run the plan and the experiments to their end, or as far as the budget allows."""
        try:
            self._measure()
        except UserError as error:
            self.run_context.abort(error)

    def _measure(self) -> None:
        session, clock = self._session, self.run_context.clock
        if (former := resumed_run(self._options)) is not None:
            self._resume(former)
        self._write_record()
        logger.info("%s", plan_sentences(session.task, time.time()))
        clock.wait_until(0)
        verdict, stopped = None, ""
        try:
            if REQUESTS in session.task.questions:
                verdict = self._measure_request_limit()
                self._mark_done(REQUESTS)
            self._run_experiments(verdict)
        except (ProbeStopped, StopUser) as end:
            stopped = str(end) or why_stopped(self.run_context)
        finally:
            session.experiment_attempts = self._executor.attempts
        self._conclude(stopped)
        PLUGIN.finish()
        clock.stopping.wait()
        raise StopUser

    # The request limit

    def _measure_request_limit(self) -> Verdict:
        session = self._session
        if REQUESTS in session.done:
            logger.info("The resumed run had measured the request limit")
            return run_in_thread(session.verdict)
        return self._follow_plan(self._now_s())

    def _follow_plan(self, start_s: float) -> Verdict:
        session = self._session
        steps = plan(session.plan_options(self._executor.sent), start_s)
        result: Burst | Verdict = next(steps)
        while isinstance(result, Burst) and not run_in_thread(session.slots_refuse):
            result = send_in_thread(steps, self._send(result))
        return run_in_thread(session.verdict)

    def _send(self, burst: Burst) -> Sequence[Observation]:
        """Send one burst and return its observations."""
        session = self._session
        self._progress(burst.purpose, burst.at_s - self._now_s())
        if not self.run_context.clock.wait_until(round((burst.at_s - session.start_s) * 1e9)):
            raise ProbeStopped(why_stopped(self.run_context))
        first = len(session.attempts)
        self._requests_left = burst.max_requests
        others = [
            gevent.spawn(self._send_sequentially, number, first) for number in range(1, burst.max_in_flight)
        ]
        self._send_sequentially(0, first)
        gevent.joinall(others, raise_error=True)
        if burst.confirm_s is not None and session.refused_since(first):
            gevent.sleep(burst.confirm_s)
            self._send_one(0)
        accepted, refused = session.counts_since(first)
        # While the probe waits for refusals to end, only their end is news.
        level = logging.INFO if accepted or burst.max_requests > 1 else logging.DEBUG
        logger.log(level, "%s: %d accepted, %d refused", burst.purpose, accepted, refused)
        return session.observations_since(first)

    def _send_sequentially(self, client: int, first: int) -> None:
        while self._requests_left > 0 and not self._session.refused_since(first):
            self._requests_left -= 1
            self._send_one(client)

    def _send_one(self, client: int) -> None:
        while len(self._clients) <= client:
            self._clients.append(ChatClient(self.run_context))
        reply = self._clients[client].chat(MESSAGES, max_tokens=1, name="probe", prompt_tokens=8)
        if reply.record.status == HTTPStatus.UNAUTHORIZED:
            target = self.run_context.upstream.target
            variable = next(iter(target.key_names), None)
            raise UserError(
                f"the API refuses the key{f' in {variable}' if variable else ''} (401: {reply.error})",
                where=target.base_url,
                remedy=f"export {variable}=… with a valid key"
                if variable
                else "set the target's api_key_env",
            )
        if not self._session.add(reply.record):
            raise ProbeStopped(f"{SESSION.max_failures} requests in a row failed: {reply.error}")
        if classify(reply.record) is Decision.BILLING:
            raise ProbeStopped(f"{UNPAID}: {reply.error}")

    # The experiments

    def _run_experiments(self, verdict: Verdict | None) -> None:
        session, executor = self._session, self._executor
        names = session.remaining_experiments()
        if names and verdict is not None and not verdict.accepts_more:
            reason = verdict.reason or "a longer limit is exhausted"
            raise ProbeStopped(f"the server accepts no more requests: {reason}")
        for name in names:
            if name == "charges" and session.task.other_model is None:
                session.task = replace(session.task, other_model=self._find_other_model())
            context = session.context(verdict, sent=executor.sent, tokens=executor.tokens)
            self._question = name
            logger.info("Now: %s", name)
            experiment = EXPERIMENTS[name].steps(context, self._now_s())
            results = executor.play(name, experiment, self._progress)
            self._mark_done(name)
            answers = EXPERIMENTS[name].analyze(results, context)
            again = session.learn(answers)
            for answer in answers:
                logger.info("%s", answer.says)
            if again:
                logger.info("Now: %s, with fewer in flight", REQUESTS)
                self._question = REQUESTS
                verdict = self._follow_plan(self._now_s() + SESSION.release_s)

    def _find_other_model(self) -> str | None:
        own = self.run_context.scenario.model
        other = next((name for name in self._executor.list_models() if name != own), None)
        if other is not None:
            logger.info("%s: %s, from the list of models", OTHER_MODEL, other)
        return other

    # Shared by both

    def _mark_done(self, name: str) -> None:
        self._session.done.add(name)
        self._write_record()

    def _write_record(self) -> None:
        session = self._session
        record = ProbeRecord(
            task=session.task,
            done=tuple(sorted(session.done)),
            resumed=self._resumed,
            resumed_done=tuple(sorted(self._resumed_done)),
        )
        write_atomically(self.run_context.folder.path / RECORD_FILE, msgspec.json.encode(record) + b"\n")

    def _resume(self, folder: RunFolder) -> None:
        shift_ns = folder.manifest().clock.wall_ns - self.run_context.clock.start_wall_ns
        with readable(folder):
            attempts = load_attempts(folder)
        self._session.resume(attempts, shift_ns, _read_done(folder.path / RECORD_FILE))
        self._resumed, self._resumed_done = folder.path.name, frozenset(self._session.done)
        done = ", ".join(sorted(self._session.done)) or "nothing yet"
        logger.info("Resuming run %s: %d attempts, measured: %s", folder.path.name, len(attempts), done)

    def _now_s(self) -> float:
        return self._session.start_s + self.run_context.clock.now_s()

    def _progress(self, purpose: str, wait_s: float) -> None:
        """Report the next step and when it starts. Log it unless it is like the previous one."""
        if not purpose:
            return
        activity, due = f"{self._question}: {purpose}", ""
        if wait_s > 1:
            due = time.strftime(", at %H:%M:%S", time.localtime(time.time() + wait_s))
            if activity != self._activity or wait_s > LONG_WAIT_S:
                logger.info("In %.0f s: %s", wait_s, purpose)
        sent = len(self._session.attempts) + self._executor.sent
        PLUGIN.report_activity(f"{activity}{due}; {sent} requests so far")
        self._activity = activity

    def _conclude(self, stopped: str) -> None:
        """Write and log the findings."""
        folder = self.run_context.folder.path
        findings = run_in_thread(self._session.findings)
        write_atomically(folder / "limits.json", encode(to_record(findings, folder.name, stopped or None)))
        text = limits_toml_of(findings, folder.name)
        if text is not None:
            write_atomically(folder / "limits.toml", text.encode())
        if stopped:
            logger.warning("The probe stopped early: %s", stopped)
            logger.warning("To continue it, repeat the command with --probe-resume %s", folder.name)
        for line in summary(findings):
            logger.info("%s", line)


def plan_sentences(task: ProbeTask, now_s: float) -> str:
    """Return what a probe measures, what it spends at most, and when it usually ends."""
    if task.questions == (REQUESTS,):
        max_requests = min(task.budget, PLAN.quick_budget) if task.quick else task.budget
        spend = f"The probe sends up to {max_requests:,} requests of one token each"
    else:
        names = ", ".join(task.questions)
        spend = f"The probe measures {names}: up to {task.budget:,} requests and {task.tokens:,} tokens"
    minutes = max(1, round(task.usual_duration_s / 60))
    end = time.strftime("%H:%M", time.localtime(now_s + task.usual_duration_s))
    period_s = task.period_s or CONTEXT.usual_period_s
    return (
        f"{spend}. With limits per {period_s:g} s as documented it takes about {minutes} min, until {end}; "
        "other limits can take longer"
    )


def _read_done(path: Path) -> tuple[str, ...]:
    """Return the questions that a run measured completely; an empty tuple without a valid file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProbeRecord).done
    except (OSError, ValueError):
        return ()
