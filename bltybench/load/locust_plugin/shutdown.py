"""Ending a run early without errors in Locust."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import gevent
import psutil
from gevent.lock import RLock
from locust.event import Events
from locust.runners import STATE_CLEANUP, STATE_RUNNING, STATE_SPAWNING, MasterRunner, Runner, WorkerRunner

from bltybench.errors import UserError
from bltybench.load.locust_plugin.console import print_error
from bltybench.load.locust_plugin.options import RUN_TIME_MARGIN_S, parsed_options
from bltybench.load.locust_plugin.user_classes import UserClasses
from bltybench.load.run.run import Run

logger = logging.getLogger("bltybench")

INTERRUPTED = 130
"""Exit code after Ctrl-C before a run, or a second one after it."""
INTERRUPT_DRAIN_S = 1.0
"""Time for requests in flight to finish after Ctrl-C, in seconds."""
MAX_CONCLUDE_S = 10.0
"""Maximum wait for a probe to write its findings after Ctrl-C, in seconds. The fit takes CPU time."""
LEAVE_S = 0.05
"""Seconds for users that have just ended to leave Locust's group, which logs errors if it stops them."""
POLL_S = 0.05
"""Interval of the checks whether another greenlet still shuts Locust down, in seconds."""
MAX_CONNECT_S = 10.0
"""Maximum wait for forked workers to connect before they are dismissed, in seconds."""
MAX_EXIT_S = 5.0
"""Maximum wait for dismissed workers to end before a signal ends them, in seconds."""


def end_at_signals(events: Events) -> None:
    """Let Ctrl-C end a run, and a closed terminal do so as SIGTERM does, unless ``nohup`` protects it."""
    events.quitting.add_listener(_QuitOnce())
    # Through the event loop: raised by Python itself, it would hit whichever user is running.
    gevent.signal_handler(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        gevent.signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)


class _QuitOnce:
    """Lets one greenlet shut Locust down, and suspends the others that begin to.

    The main greenlet does so when all users have ended, and a signal's greenlet at a signal. The second one
    would repeat the output, and exit again in an interpreter that is closing, which shows a traceback.
    """

    def __init__(self) -> None:
        self._first: Any = None
        """The greenlet that shuts Locust down."""

    def __call__(self, **_: object) -> None:
        hub, current = gevent.get_hub(), gevent.getcurrent()
        first = self._first = self._first or current
        if current is first:
            return
        if current is not hub.parent:
            hub.switch()  # until the process ends
        while not first.dead:
            try:
                gevent.sleep(POLL_S)
            except KeyboardInterrupt:
                hub.loop.run_callback(first.throw, KeyboardInterrupt)


def _interrupt() -> None:
    """Raise KeyboardInterrupt in the main greenlet, where Locust waits for it."""
    hub = gevent.get_hub()
    hub.loop.run_callback(hub.parent.throw, KeyboardInterrupt)


def exit_with(error: UserError | KeyboardInterrupt, runner: Runner) -> NoReturn:
    """Exit because of an error or Ctrl-C before a run, and let forked workers exit, too."""
    code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else print_error(error)
    runner.environment.process_exit_code = code
    if isinstance(runner, MasterRunner) and parsed_options(runner.environment).processes:
        _dismiss_workers(runner)
    sys.exit(code)


def _dismiss_workers(runner: MasterRunner) -> None:
    """End the workers that Locust forked, which would otherwise look for their master for minutes."""
    give_up_s = time.monotonic() + MAX_CONNECT_S
    while len(runner.clients) < len(forked_workers()) and time.monotonic() < give_up_s:
        gevent.sleep(POLL_S)
    runner.quit()
    give_up_s = time.monotonic() + MAX_EXIT_S
    while forked_workers() and time.monotonic() < give_up_s:
        gevent.sleep(POLL_S)
    for worker in forked_workers():
        worker.kill()


def forked_workers() -> list[psutil.Process]:
    """Return the processes that Locust forked as workers and that have not ended.

    They stay children to be waited for, because Locust logs an error for one that is gone.
    """
    own = psutil.Process()
    workers = []
    for child in own.children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and child.cmdline() == own.cmdline():
                workers.append(child)
    return workers


def stop_run(runner: Runner, reason: str) -> None:
    """End a run that is in progress, and log the reason."""
    if runner.state in {STATE_SPAWNING, STATE_RUNNING}:
        logger.warning("Stopping: %s", reason)
        gevent.spawn_later(LEAVE_S, end_run, runner)


def end_run(runner: Runner) -> None:
    """Stop the users and wait for their last reports. In headless mode, quit Locust then."""
    runner.stop()
    if parsed_options(runner.environment).headless:
        runner.quit()


def end_when_over(runner: Runner, run: Run, duration_s: float) -> None:
    """End ``run`` after ``duration_s``. Whatever ends it earlier can kill this greenlet."""
    run.started.wait()
    gevent.sleep(max(0.0, duration_s + RUN_TIME_MARGIN_S - run.now_s()))
    gevent.spawn(end_run, runner)


def let_anyone_end(runner: Runner, on_end: Callable[[], None]) -> None:
    """Let any greenlet call ``runner.stop()`` or ``runner.quit()``, also several at the same time.

    Both stop all users. If one of them calls, Locust would kill it in the middle of the shutdown, so
    ``on_end`` runs, and another greenlet takes over. While one greenlet waits for the workers' users to stop,
    a second one waits for the first: otherwise its ``quit()`` would end what tells the first that a worker is
    lost.
    """
    turn = RLock()
    for name in ("stop", "quit"):
        setattr(runner, name, partial(_end, getattr(runner, name), runner, on_end, turn))


def _end(
    end: Callable[..., None], runner: Runner, on_end: Callable[[], None], turn: RLock, **options: Any
) -> None:
    def in_turn() -> None:
        with turn:
            end(**options)

    if gevent.getcurrent() not in runner.user_greenlets:
        return in_turn()
    on_end()
    gevent.spawn(in_turn)
    raise gevent.GreenletExit


def ended_as_planned(runner: Runner, now_s: float, duration_s: float | None) -> bool:
    """Return whether a run that has just ended did so by itself, or was to last until it is stopped."""
    if runner.environment.shape_class is not None:
        # Locust stops the greenlet of the shape first, unless the shape itself ended the run.
        return runner.shape_greenlet is not None
    return duration_s is None or now_s >= duration_s - 1.0


def stop_on_quit(runner: Runner) -> None:
    """Stop a run that Ctrl-C or SIGTERM interrupted, so that its records can be reported."""
    if isinstance(runner, WorkerRunner):
        # The master may stop the run at the same moment, and Locust can't stop users that are stopping.
        while runner.state == STATE_CLEANUP:
            gevent.sleep(0.05)
        runner.greenlet.kill(block=True)
    if runner.state in {STATE_SPAWNING, STATE_RUNNING}:
        probes = UserClasses(runner.environment.user_classes).measure_limits
        runner.environment.stop_timeout = MAX_CONCLUDE_S if probes else INTERRUPT_DRAIN_S
        runner.stop()
        if not isinstance(runner, WorkerRunner):
            runner.quit()
