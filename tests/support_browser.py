"""A headless Chromium, controlled over its debugging protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websocket import WebSocket, create_connection

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 30.0
BAD = frozenset({"error", "warning"})

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


class Tab:
    """One page. It keeps every event that it receives while a command runs."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._number = 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def open(self, url: str) -> None:
        """Load a page."""
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, within_s: float = 20.0) -> None:
        """Wait until an expression is true in the page."""
        until = time.monotonic() + within_s
        while not self.run(script):
            assert time.monotonic() < until, f"never true: {script}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def of(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of all events of a method so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def complaints(self) -> list[str]:
        """Return exceptions, console errors and warnings, and blocked or failed loads."""
        thrown = [event["exceptionDetails"]["text"] for event in self.of("Runtime.exceptionThrown")]
        logged = [entry["entry"] for entry in self.of("Log.entryAdded")]
        called = [call for call in self.of("Runtime.consoleAPICalled") if call["type"] in BAD]
        return [
            *thrown,
            *(entry["text"] for entry in logged if entry["level"] in BAD),
            *(str(call["args"]) for call in called),
        ]

    def requested(self) -> list[str]:
        """Return the URLs that the page requested."""
        return [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]


@contextmanager
def browser() -> Iterator[Tab]:
    """Start a browser with one empty tab, or skip the test if there is no Chromium."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="bltybench-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [found, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with closing(_connect(Path(profile) / "DevToolsActivePort", process)) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(20)


def _connect(port_file: Path, process: subprocess.Popen[bytes]) -> WebSocket:
    until = time.monotonic() + START_S
    while not (port_file.is_file() and port_file.read_text().count("\n")):
        assert process.poll() is None, "the browser exited immediately"
        assert time.monotonic() < until, "the browser did not start"
        time.sleep(0.05)
    port = port_file.read_text().splitlines()[0]
    with httpx.Client(trust_env=False) as client:
        until = time.monotonic() + START_S
        while True:
            listed = client.get(f"http://127.0.0.1:{port}/json").json()
            tabs = [tab for tab in listed if tab["type"] == "page"]
            if tabs:
                return create_connection(tabs[0]["webSocketDebuggerUrl"], timeout=60)
            assert time.monotonic() < until, "the browser has no tab"
            time.sleep(0.05)
