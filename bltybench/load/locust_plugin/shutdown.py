"""Stopping a run in the middle, without Locust tripping over itself."""

from __future__ import annotations

import time

import gevent
from locust.env import Environment
from locust.runners import STATE_CLEANUP, STATE_RUNNING, STATE_SPAWNING, MasterRunner, Runner, WorkerRunner

INTERRUPT_DRAIN_S = 1.0
"""How long calls in flight may go on after Ctrl-C."""

WORKERS_COME_S = 10.0


def interrupt() -> None:
    """Raise KeyboardInterrupt where Locust waits for it, in the main greenlet."""
    hub = gevent.get_hub()
    hub.loop.run_callback(hub.parent.throw, KeyboardInterrupt)


def dismiss_workers(runner: Runner | None, processes: int | None) -> None:
    """Tell the processes that Locust forked to end, where there will be no run.

    Left alone they would wait for ever for a master that is gone.
    """
    if not isinstance(runner, MasterRunner) or not processes:
        return
    give_up_s = time.monotonic() + WORKERS_COME_S
    while len(runner.clients) < processes and time.monotonic() < give_up_s:
        gevent.sleep(0.1)
    runner.quit()


def stop_soon(environment: Environment, runner: Runner) -> None:
    """Stop a run that Ctrl-C or SIGTERM met in the middle, so that what there is can be reported."""
    if isinstance(runner, WorkerRunner):
        # The master may say the same at this moment, and Locust cannot stop users that are being stopped.
        while runner.state == STATE_CLEANUP:
            gevent.sleep(0.05)
        runner.greenlet.kill(block=True)
    if runner.state in {STATE_SPAWNING, STATE_RUNNING}:
        environment.stop_timeout = INTERRUPT_DRAIN_S
        runner.stop()
        if not isinstance(runner, WorkerRunner):
            runner.quit()
