from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from locust.exception import StopUser

from bltybench.load import held_call
from bltybench.load.held_call import CUT_OFF, hold
from bltybench.load.recorder import CallContext
from bltybench.load.run.context import RunContext
from bltybench.load.run.request_source import Sessions
from bltybench.runs.attempt import Outcome
from bltybench.scenario.api.routes import Route

CALL = CallContext(route=Route("t", None, "m"), call_id="c", name="chat", body=b"", stream=True, model="m")


def context(sessions: Sessions, *, stopping: bool = False) -> RunContext:
    clock = SimpleNamespace(now_ns=lambda: 99, stopping=SimpleNamespace(is_set=lambda: stopping))
    parts = {"source": SimpleNamespace(sessions=sessions), "sink": SimpleNamespace(in_flight=0)}
    return cast(RunContext, SimpleNamespace(clock=clock, **parts))


def test_a_call_waits_until_the_one_before_it_has_ended() -> None:
    sessions = Sessions()
    sessions.begin(4)
    waiting = gevent.spawn(hold, context(sessions), CALL, 0, 7, 4)
    gevent.sleep(0)
    assert not waiting.ready()
    sessions.end(4)
    assert waiting.get(timeout=5).held_until_ns == 99
    assert hold(context(sessions), CALL, 0, 7, 4) is CALL
    sessions.end(4)  # of a user that is stopped later


@pytest.mark.parametrize("killed", [False, True])
def test_a_call_that_still_waits_when_the_run_stops_is_recorded_as_unsent(
    monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    recorded: list[tuple[Any, ...]] = []
    monkeypatch.setattr(held_call, "record", lambda *arguments: recorded.append(arguments))
    sessions = Sessions()
    sessions.begin(4)
    waiting = gevent.spawn(hold, context(sessions, stopping=True), CALL, 3, 7, 4)
    gevent.sleep(0)
    if killed:
        waiting.kill()
    else:
        sessions.end(4)
        with pytest.raises(StopUser):
            waiting.get(timeout=5)
    ((_, sent, result, waited_s),) = recorded
    assert (sent.call.call_id, sent.user, sent.due_ns, sent.exchange.sent_ns, waited_s) == (
        "c",
        3,
        7,
        None,
        None,
    )
    assert sent.call.held_until_ns == 99
    assert (result.outcome, result.error_message) == (Outcome.CANCELLED, CUT_OFF)
