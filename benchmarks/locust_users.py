"""The clients that Locust runs: ours, FastHttpUser, HttpUser. A locustfile; the class is chosen by name."""

from __future__ import annotations

import os
from typing import Any

from bltybench.load import ScenarioUser

# isort: split
import json
import random
import time

import gevent
from locust import FastHttpUser, HttpUser, events, task
from locust.env import Environment

from benchmarks.work import Meter, Stream, Work, read_work
from bltybench.load.locust_plugin.plugin import current_context

WORK: Work = read_work()
METER = Meter(WORK)


def _spread() -> None:
    gevent.sleep(random.random() * WORK.spread_s)


class Ours(ScenarioUser):
    """The product as it is: composed, sent, read, recorded and stored."""

    scenario = "bench"

    def on_start(self) -> None:
        """Begin at a moment of its own once the run has begun: before that, all would wait together."""
        self.run_context.clock.wait_until(0)
        _spread()


class Reading:
    """Takes an answer line by line, as a user of Locust would write it."""

    def __init__(self, number: str) -> None:
        self.number = int(number)
        self.times_ns: list[int] = []
        self.done = False

    def line(self, line: bytes) -> None:
        """Look at one line."""
        if not line.startswith(b"data: "):
            return
        now_ns = time.monotonic_ns()
        data = line[6:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        choices = json.loads(data)["choices"]
        if choices and choices[0]["delta"].get("content"):
            self.times_ns.append(now_ns)

    def finish(self, sent_ns: int) -> None:
        """Note what came."""
        METER.failed += not self.done
        METER.streams.append(Stream(self.number, sent_ns, time.monotonic_ns(), self.times_ns))


class Fast(FastHttpUser):
    """Locust's FastHttpUser (geventhttpclient), reading line by line as the bytes come."""

    host = WORK.base_url

    def on_start(self) -> None:
        """Begin at a moment of its own."""
        _spread()

    @task
    def ask(self) -> None:
        """One stream."""
        sent_ns = time.monotonic_ns()
        with self.client.post(
            "/chat/completions", json=WORK.body, stream=True, catch_response=True
        ) as response:
            reading = Reading(response.headers["x-request-id"])
            stream: Any = response.stream
            while line := stream.readline(b"\n"):
                reading.line(line)
        reading.finish(sent_ns)


class Plain(HttpUser):
    """Locust's HttpUser (requests)."""

    host = WORK.base_url

    def on_start(self) -> None:
        """Begin at a moment of its own."""
        _spread()

    @task
    def ask(self) -> None:
        """One stream."""
        sent_ns = time.monotonic_ns()
        with self.client.post(
            "/chat/completions", json=WORK.body, stream=True, catch_response=True
        ) as response:
            reading = Reading(response.headers["x-request-id"])
            for line in response.iter_lines():
                reading.line(line)
        reading.finish(sent_ns)


def _measure() -> None:
    context = current_context()
    if context is not None:
        context.clock.wait_until(0)
    gevent.sleep(WORK.left_s())
    METER.begin()
    gevent.sleep(WORK.seconds)
    if context is not None:
        context.sink.deferred.settle()
        context.sink.attempts.flush()
    METER.end(str(context.folder.path) if context is not None else "")
    # What Locust does when a run ends is not measured here, and a report would take longer than the run.
    os._exit(0)


def _begin(environment: Environment, **_: Any) -> None:
    gevent.spawn(_measure)


events.test_start.add_listener(_begin)
