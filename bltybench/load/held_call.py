"""A call that waits before it is sent: for the answer before it in its session, or for its pacing."""

import time

import msgspec
from gevent import GreenletExit
from gevent.event import Event
from locust.exception import StopUser

from bltybench.load.client_policy import Passed
from bltybench.load.recorder import ENDPOINT, CallContext, SentAttempt, record
from bltybench.load.run.context import RunContext
from bltybench.scenario.api.call_size import CallSize
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret

CUT_OFF = "the run ended before the answer to the call before it in its session"
HELD_BACK = "the run ended before its pacing sent it"


def hold(context: RunContext, call: CallContext, user: int, due_ns: int, after: int) -> CallContext:
    """Wait until the call of arrival ``after`` has ended. Record this call if the run stops before that.

    Raises StopUser if nothing may be sent any more.
    """
    try:
        waited = context.source.sessions.wait(after)
    except GreenletExit:
        _record_unsent(context, _held(context, call), user, number=0, due_ns=due_ns, why=CUT_OFF)
        raise
    if not waited:
        return call
    held = _held(context, call)
    if context.clock.stopping.is_set():
        _record_unsent(context, held, user, number=0, due_ns=due_ns, why=CUT_OFF)
        raise StopUser
    return held


def pace(
    context: RunContext, call: CallContext, user: int, *, number: int, due_ns: int, ended: Event
) -> tuple[CallContext, Passed | None]:
    """Wait until the pacing sends attempt ``number`` of a call. Record it if ``ended`` is set before.

    Raises then what ends the call of the user. Only the first attempt of a call waits for its session.
    Without pacing, nothing is awaited, and the second value is None.
    """
    if number and call.held_until_ns is not None:
        call = msgspec.structs.replace(call, held_until_ns=None)
    gate = context.policy.gate(call.route) if call.endpoint == ENDPOINT else None
    if gate is None:
        return call, None
    size = CallSize(call.prompt_tokens or 0, call.max_tokens or 0)
    killed: GreenletExit | None = None
    passed: Passed | None = None
    try:
        passed = gate.hold(size, due_ns / 1e9, ended)
    except GreenletExit as stopped:
        killed = stopped
    if passed is None:
        held = _paced(context, call, due_ns)
        _record_unsent(context, held, user, number=number, due_ns=due_ns, why=HELD_BACK)
        raise killed or context.give_up()
    return (_paced(context, call, due_ns) if passed.held else call), passed


def _held(context: RunContext, call: CallContext) -> CallContext:
    return msgspec.structs.replace(call, held_until_ns=context.clock.now_ns())


def _paced(context: RunContext, call: CallContext, due_ns: int) -> CallContext:
    now_ns, begin_ns = context.clock.now_ns(), max(due_ns, call.held_until_ns or due_ns)
    return msgspec.structs.replace(call, held_until_ns=now_ns, paced_ns=max(0, now_ns - begin_ns))


def _record_unsent(
    context: RunContext, call: CallContext, user: int, *, number: int, due_ns: int, why: str
) -> None:
    failure = Failure(Fault.CANCELLED, why)
    exchange = Exchange(stream=call.stream, end_ns=time.monotonic_ns(), failure=failure)
    sent = SentAttempt(call, user, number, due_ns, context.sink.in_flight, exchange)
    record(context, sent, interpret(exchange), None)
