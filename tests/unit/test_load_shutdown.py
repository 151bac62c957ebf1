"""Shutting Locust down when the main greenlet and a signal's greenlet begin to do so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.pool import Group
from locust.event import Events

from bltybench.errors import UserError
from bltybench.load.locust_plugin.shutdown import end_at_signals, exit_with, let_anyone_end


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


class FakeRunner:
    """Locust's master: ``stop`` waits until a heartbeat notices a lost worker, and ``quit`` ends those."""

    def __init__(self) -> None:
        self.greenlet = Group()
        self.user_greenlets = Group()
        self.state = "running"
        self.users = 1
        self.greenlet.spawn(self._notice)

    def _notice(self) -> None:
        gevent.sleep(0.2)
        self.users = 0

    def stop(self) -> None:
        if self.state == "running":
            self.state = "stopping"
            while self.users:
                gevent.sleep(0.02)

    def quit(self) -> None:
        self.stop()
        self.greenlet.kill(block=True)


def test_greenlet_that_ends_a_run_second_waits_for_the_first() -> None:
    runner: Any = FakeRunner()
    let_anyone_end(runner, lambda: None)
    first, second = gevent.spawn(runner.stop), gevent.spawn_later(0.05, runner.quit)
    gevent.joinall([first, second], timeout=5)
    assert first.successful()
    assert second.successful()


def test_user_that_ends_a_run_leaves_the_rest_to_another_greenlet() -> None:
    runner: Any = FakeRunner()
    ended: list[str] = []
    let_anyone_end(runner, lambda: ended.append("told"))
    user = runner.user_greenlets.spawn(runner.quit)
    gevent.sleep(0.5)
    assert user.dead
    assert ended == ["told"]
    assert (runner.users, len(runner.greenlet)) == (0, 0)


@pytest.mark.parametrize(
    ("error", "code", "output"),
    [(KeyboardInterrupt(), 130, ""), (UserError("the port is in use"), 2, "bltybench: the port is in use\n")],
)
def test_ctrl_c_before_a_run_exits_without_a_message(
    error: UserError | KeyboardInterrupt, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner: Any = SimpleNamespace(environment=SimpleNamespace(process_exit_code=None))
    with pytest.raises(SystemExit) as exited:
        exit_with(error, runner)
    assert (exited.value.code, runner.environment.process_exit_code) == (code, code)
    assert capsys.readouterr().err == output
