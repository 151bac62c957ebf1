"""A call of a recorded session that waits for the answer before it."""

import time

import msgspec
from gevent import GreenletExit
from locust.exception import StopUser

from bltybench.load.recorder import CallContext, SentAttempt, record
from bltybench.load.run.context import RunContext
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret

CUT_OFF = "the run ended before the answer to the call before it in its session"


def hold(context: RunContext, call: CallContext, user: int, due_ns: int, after: int) -> CallContext:
    """Wait until the call of arrival ``after`` has ended. Record this call if the run stops before that.

    Raises StopUser if nothing may be sent any more.
    """
    try:
        waited = context.source.sessions.wait(after)
    except GreenletExit:
        _record_unsent(context, call, user, due_ns)
        raise
    if not waited:
        return call
    if context.clock.stopping.is_set():
        _record_unsent(context, call, user, due_ns)
        raise StopUser
    return msgspec.structs.replace(call, held_until_ns=context.clock.now_ns())


def _record_unsent(context: RunContext, call: CallContext, user: int, due_ns: int) -> None:
    held = msgspec.structs.replace(call, held_until_ns=context.clock.now_ns())
    failure = Failure(Fault.CANCELLED, CUT_OFF)
    exchange = Exchange(stream=call.stream, end_ns=time.monotonic_ns(), failure=failure)
    sent = SentAttempt(held, user, 0, due_ns, context.sink.in_flight, exchange)
    record(context, sent, interpret(exchange), None)
