"""The whole probe in virtual time: what locustfiles/limits.py does, without sockets and without waiting."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.simulation.virtual_api import START_S, VirtualApi
from benchmarks.simulation.virtual_request import VirtualRequest
from bltybench.limits.experiments.registry import QUESTIONS, REQUESTS
from bltybench.limits.findings.model import Findings
from bltybench.limits.fit.result import Verdict
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst
from bltybench.limits.probe.protocol import Experiment, ProbeRequest, SendStep
from bltybench.limits.session import ProbeSession, ProbeTask

ONE = ProbeRequest(role="probe")


def probe(api: VirtualApi, task: ProbeTask, *, other_model: str | None = "b") -> Findings:
    """Ask all that the task names of an API, and return what was found."""
    book = ProbeSession(replace(task, other_model=other_model), START_S)
    verdict = _requests(api, book) if REQUESTS in task.questions else None
    if verdict is None or verdict.status not in {"always_refused", "nothing_sent"}:
        for name in book.unasked():
            asked = [each for each in api.flights if each.stage is not None]
            known = book.known(verdict, sent=len(asked), tokens=sum(map(_tokens, asked)))
            seen = api.play(QUESTIONS[name].ask(known, api.now_s), name)
            book.learn(QUESTIONS[name].judge(seen, known))
    book.others = [attempt for attempt in api.attempts() if attempt.stage is not None]
    return book.findings(verdict)


def _requests(api: VirtualApi, book: ProbeSession) -> Verdict:
    playing = plan(book.aims(), api.now_s)
    burst = next(playing)
    while True:
        first = len(book.rows)
        going = _burst(api, book, burst)
        try:
            burst = playing.send(book.sights_since(first))
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict
        if not going:
            return book.findings(None).verdict


def _burst(api: VirtualApi, book: ProbeSession, burst: Burst) -> bool:
    first = len(book.rows)
    going = _play(
        api,
        book,
        SendStep(
            (ONE,) * burst.max_requests, burst.at_s, max_in_flight=burst.max_in_flight, until_refused=True
        ),
    )
    if burst.confirm_s is not None and book.refused_since(first):
        going = _play(api, book, SendStep((ONE,), after_s=burst.confirm_s)) and going
    return going


def _play(api: VirtualApi, book: ProbeSession, step: SendStep) -> bool:
    before = len(api.flights)
    api.play(_once(step))
    going = True
    for attempt in api.attempts(before):
        going = book.add(attempt) and going
    return going


def _once(step: SendStep) -> Experiment:
    yield step


def _tokens(flight: VirtualRequest) -> int:
    """Return what a request counts for in the budget: all that it might have used where it was dropped."""
    if flight.cancelled or flight.lost:
        return flight.shot.max_total_tokens
    return flight.prompt + flight.tokens if flight.accepted else 0
