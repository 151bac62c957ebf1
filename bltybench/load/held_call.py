"""A call of a recorded session that waits for the answer before it."""

import time

import msgspec
from gevent import GreenletExit

from bltybench.load.recorder import CallContext, SentAttempt, record
from bltybench.load.run.context import RunContext
from bltybench.wire.exchange import Exchange
from bltybench.wire.fault import Failure, Fault
from bltybench.wire.interpret import interpret

CUT_OFF = "the run ended before the answer to the call before it in its session"


def hold(context: RunContext, call: CallContext, user: int, due_ns: int, after: int) -> CallContext:
    """Wait until the call of arrival ``after`` has ended. Record this call if the run stops before that."""
    try:
        waited = context.source.sessions.wait(after)
    except GreenletExit:
        failure = Failure(Fault.CANCELLED, CUT_OFF)
        exchange = Exchange(stream=call.stream, end_ns=time.monotonic_ns(), failure=failure)
        sent = SentAttempt(call, user, 0, due_ns, context.sink.in_flight, exchange)
        record(context, sent, interpret(exchange), None)
        raise
    return msgspec.structs.replace(call, held_until_ns=context.clock.now_ns()) if waited else call
