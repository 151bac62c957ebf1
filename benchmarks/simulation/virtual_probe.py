"""The whole probe in virtual time: what ``load.probe`` does, without sockets and without waiting."""

from dataclasses import replace

from benchmarks.simulation.virtual_api import START_S, VirtualApi
from bltybench.limits.experiments.registry import EXPERIMENTS, REQUESTS
from bltybench.limits.findings.model import Findings
from bltybench.limits.fit.result import Verdict
from bltybench.limits.probe.plan import plan
from bltybench.limits.probe.planner import Burst
from bltybench.limits.probe.protocol import Experiment, ProbeRequest, SendStep
from bltybench.limits.probe.thresholds import SESSION
from bltybench.limits.session import ProbeSession, ProbeTask

REQUEST = ProbeRequest(role="probe")


def probe(api: VirtualApi, task: ProbeTask, *, other_model: str | None = "b") -> Findings:
    """Measure what the task names on an API, and return the findings."""
    session = ProbeSession(replace(task, other_model=other_model), START_S)
    verdict = _measure_request_limit(api, session) if REQUESTS in task.questions else None
    if verdict is None or verdict.accepts_more:
        for name in session.remaining_experiments():
            sent = [request for request in api.requests if request.stage is not None]
            tokens = sum(request.max_used_tokens for request in sent)
            context = session.context(verdict, sent=len(sent), tokens=tokens)
            results = api.play(EXPERIMENTS[name].steps(context, api.now_s), name)
            session.done.add(name)
            if session.learn(EXPERIMENTS[name].analyze(results, context)):
                verdict = _measure_request_limit(api, session, len(sent) + len(results), SESSION.release_s)
    session.experiment_attempts = [attempt for attempt in api.attempts() if attempt.stage is not None]
    return session.findings()


def _measure_request_limit(
    api: VirtualApi, session: ProbeSession, sent: int = 0, after_s: float = 0.0
) -> Verdict:
    steps = plan(session.plan_options(sent), api.now_s + after_s)
    burst = next(steps)
    while True:
        first = len(session.attempts)
        continues = _send(api, session, burst)
        try:
            burst = steps.send(session.observations_since(first))
        except StopIteration:
            return session.verdict()
        if not continues or session.slots_refuse():
            return session.verdict()


def _send(api: VirtualApi, session: ProbeSession, burst: Burst) -> bool:
    """Send a burst. Return False if too many requests have failed."""
    first = len(session.attempts)
    requests = (REQUEST,) * burst.max_requests
    step = SendStep(requests, burst.at_s, max_in_flight=burst.max_in_flight, until_refused=True)
    continues = _play(api, session, step)
    if burst.confirm_s is not None and session.refused_since(first):
        continues = _play(api, session, SendStep((REQUEST,), after_s=burst.confirm_s)) and continues
    return continues


def _play(api: VirtualApi, session: ProbeSession, step: SendStep) -> bool:
    def experiment() -> Experiment:
        yield step

    first = len(api.requests)
    api.play(experiment())
    continues = True
    for attempt in api.attempts(first):
        continues = session.add(attempt) and continues
    return continues
