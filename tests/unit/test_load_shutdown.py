"""Shutting Locust down when the main greenlet and a signal's greenlet begin to do so."""

from __future__ import annotations

import gevent
from locust.event import Events

from bltybench.load.locust_plugin.shutdown import end_at_signals


def test_greenlets_that_begin_to_shut_down_second_do_not_go_on() -> None:
    events = Events()
    steps: list[str] = []

    def quit_at_signal(name: str) -> None:
        events.quitting.fire()
        try:
            gevent.sleep(0.2)
        except KeyboardInterrupt:
            steps.append("interrupted")
        steps.append(name)

    end_at_signals(events)
    hub = gevent.get_hub()
    for name in ("first", "second"):
        gevent.spawn(quit_at_signal, name)
    gevent.sleep(0.05)
    hub.loop.timer(0.02).start(hub.parent.throw, KeyboardInterrupt)
    events.quitting.fire()
    # The main greenlet has waited for the first one, and has passed Ctrl-C on to it.
    assert steps == ["interrupted", "first"]
