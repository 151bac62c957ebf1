"""The clients that Locust runs: ours, FastHttpUser, and HttpUser. A locustfile with a class per client."""

import os
from typing import Any

from bltybench.load import ScenarioUser

# isort: split
import json
import time

import gevent
from gevent.event import AsyncResult
from locust import FastHttpUser, HttpUser, events, task
from locust.env import Environment

from benchmarks.work import Meter, Work, has_token, read_work
from bltybench.load.locust_plugin.plugin import PLUGIN

WORK: Work = read_work()
METER = Meter(WORK)


START: AsyncResult = AsyncResult()
"""Start of the load, as soon as all clients are ready."""


def _spread() -> None:
    gevent.sleep(WORK.user_delay_s(START.get()))


class Ours(ScenarioUser):
    """The whole product: calls are composed, sent, read, recorded, and stored."""

    scenario = "bench"

    def on_start(self) -> None:
        """Start at a random time."""
        _spread()


class LocustStream:
    """One stream, read line by line as a Locust user would write it."""

    def __init__(self, number: str) -> None:
        self.number = int(number)
        self.times_ns: list[int] = []
        self.done = False

    def line(self, line: bytes) -> None:
        """Parse one line of the stream."""
        if not line.startswith(b"data: "):
            return
        now_ns = time.monotonic_ns()
        data = line[6:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        if has_token(json.loads(data)):
            self.times_ns.append(now_ns)

    def finish(self, sent_ns: int) -> None:
        """Record the stream."""
        METER.add(self.number, sent_ns, self.times_ns, done=self.done)


class Fast(FastHttpUser):
    """Locust's FastHttpUser (geventhttpclient), which reads line by line as the bytes arrive."""

    host = WORK.base_url

    def on_start(self) -> None:
        """Start at a random time."""
        _spread()

    @task
    def ask(self) -> None:
        """Request one stream."""
        sent_ns = time.monotonic_ns()
        with self.client.post(
            "/chat/completions", json=WORK.body, stream=True, catch_response=True
        ) as response:
            stream = LocustStream(response.headers["x-request-id"])
            lines: Any = response.stream
            while line := lines.readline(b"\n"):
                stream.line(line)
        stream.finish(sent_ns)


class Plain(HttpUser):
    """Locust's HttpUser (requests)."""

    host = WORK.base_url

    def on_start(self) -> None:
        """Start at a random time."""
        _spread()

    @task
    def ask(self) -> None:
        """Request one stream."""
        sent_ns = time.monotonic_ns()
        with self.client.post(
            "/chat/completions", json=WORK.body, stream=True, catch_response=True
        ) as response:
            stream = LocustStream(response.headers["x-request-id"])
            for line in response.iter_lines():
                stream.line(line)
        stream.finish(sent_ns)


def _measure() -> None:
    context = PLUGIN.context
    if context is not None:
        context.clock.wait_until(0)
    START.set(WORK.wait_for_start())
    gevent.sleep(WORK.measure_in_s(START.get()))
    METER.begin()
    gevent.sleep(WORK.seconds)
    if context is not None:
        context.sink.deferred.settle()
        context.sink.attempts.flush()
    METER.end(str(context.folder.path) if context is not None else "")
    # Skip Locust's work at the end of a run: it is not measured, and a report takes longer than the run.
    os._exit(0)


def _begin(environment: Environment, **_: Any) -> None:
    gevent.spawn(_measure)


events.test_start.add_listener(_begin)
