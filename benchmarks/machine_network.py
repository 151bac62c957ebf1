"""Several machines on one: network namespaces with their own files and, if requested, their own clock.

Everything is confined to the namespaces, which end with the ``with`` block. Root is required.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

CLONE_NEWTIME = 0x80
"""linux/sched.h."""
SUBNET = "10.77.0"
SWITCH = "switch"

START = """
for other in $HIDDEN; do mount -t tmpfs -o size=1m tmpfs "$other"; done
exec "$@"
"""
"""Shell script that hides the directories of the other machines and becomes the process."""


def why_impossible() -> str | None:
    """Return why this machine can't have such machines; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "unshare", "mount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    tried = _try(
        "unshare", "--net", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt && ip link add type bridge"
    )
    return f"namespaces are not allowed: {tried}" if tried else None


class Network:
    """Machines that are connected by a switch. The first has the address 10.77.0.1."""

    locustfile = Path(__file__).resolve().parents[1] / "locustfiles" / "mixed.py"

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names
        self._prefix = f"blty{os.getpid()}-"
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as made:
            switch = self._add_namespace(made, SWITCH)
            _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", switch, "link", "set", "bridge", "up")
            for number, name in enumerate(self._names, 1):
                space = self._add_namespace(made, name)
                self.directory(name).mkdir(parents=True)
                peer = ("peer", "name", f"port{number}", "netns", switch)
                _run("ip", "-n", space, "link", "add", "net", "type", "veth", *peer)
                _run("ip", "-n", switch, "link", "set", f"port{number}", "master", "bridge", "up")
                _run("ip", "-n", space, "address", "add", f"{SUBNET}.{number}/24", "dev", "net")
                _run("ip", "-n", space, "link", "set", "net", "up")
                _run("ip", "-n", space, "link", "set", "lo", "up")
            self._open = made.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def address(self, name: str) -> str:
        """Return a machine's address."""
        return f"{SUBNET}.{self._names.index(name) + 1}"

    def port(self, usual: int) -> int:
        """Return the port for what usually listens at another."""
        return usual

    def directory(self, name: str) -> Path:
        """Return a machine's own directory, which the others do not see."""
        return self._folder / name

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, ahead_s: float = 0.0
    ) -> subprocess.Popen[str]:
        """Start a process on a machine whose monotonic clock is ``ahead_s`` ahead."""
        hidden = " ".join(str(self.directory(other)) for other in self._names if other != name)
        isolated = ["ip", "netns", "exec", self._prefix + name, "unshare", "--mount"]
        return subprocess.Popen(
            [*isolated, "sh", "-c", START, "sh", *command],
            cwd=self.directory(name),
            env={**environment, "HIDDEN": hidden},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=(lambda: _shift_clock(ahead_s)) if ahead_s else None,  # noqa: PLW1509
        )

    def degrade(self, name: str, *, delay_ms: float, loss: float) -> bool:
        """Delay what a machine sends, and drop a fraction of it. Return False without netem."""
        how = ("netem", "delay", f"{delay_ms:g}ms", f"{delay_ms / 2:g}ms", "loss", f"{loss:.2%}")
        return not _try("tc", "-n", self._prefix + name, "qdisc", "replace", "dev", "net", "root", *how)

    def transferred_bytes(self, name: str) -> int:
        """Return how many bytes a machine has sent and received."""
        command = ["ip", "-n", self._prefix + name, "-json", "-statistics", "link", "show", "net"]
        (link,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return int(link["stats64"]["rx"]["bytes"] + link["stats64"]["tx"]["bytes"])

    def cut(self, name: str) -> None:
        """Disconnect a machine."""
        self._set_port(name, "down")

    def connect(self, name: str) -> None:
        """Connect a machine again."""
        self._set_port(name, "up")

    def _set_port(self, name: str, state: str) -> None:
        number = self._names.index(name) + 1
        _run("ip", "-n", self._prefix + SWITCH, "link", "set", f"port{number}", state)

    def _add_namespace(self, made: ExitStack, name: str) -> str:
        space = self._prefix + name
        _run("ip", "netns", "add", space)
        made.callback(_run, "ip", "netns", "delete", space)
        return space


HIDING = """
from bltybench.load import ScenarioUser
from bltybench.load.run.run_spec import RunSpec

RunSpec.sees_folder = property(lambda spec: False)

class Mixed(ScenarioUser):
    scenario = "quickstart"
"""


class Loopback:
    """The same processes without namespaces, for systems that do not allow them.

    Workers see the master's directory, but do not look at it. All share one clock and one network.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._ports = folder, dict[int, int]()
        for name in names:
            self.directory(name).mkdir(parents=True)
        self.locustfile = folder / "hiding.py"
        self.locustfile.write_text(HIDING, encoding="utf-8")

    def address(self, _name: str) -> str:
        """Return the only address."""
        return "127.0.0.1"

    def port(self, usual: int) -> int:
        """Return a port on which nothing else listens, always the same one."""
        if usual not in self._ports:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self._ports[usual] = listener.getsockname()[1]
        return self._ports[usual]

    def directory(self, name: str) -> Path:
        """Return a machine's own directory."""
        return self._folder / name

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, ahead_s: float = 0.0
    ) -> subprocess.Popen[str]:
        """Start a process in a machine's directory. Clocks can't differ: ``ahead_s`` is ignored."""
        del ahead_s
        return subprocess.Popen(
            command,
            cwd=self.directory(name),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def _shift_clock(ahead_s: float) -> None:
    """Give the process that begins after this a time namespace: exec enters it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWTIME):
        raise OSError(ctypes.get_errno(), "a time namespace is not allowed")
    seconds, nanoseconds = divmod(round(ahead_s * 1e9), 10**9)
    with open("/proc/self/timens_offsets", "w", encoding="ascii") as file:
        file.write(f"monotonic {seconds} {nanoseconds}\nboottime {seconds} {nanoseconds}\n")


def _try(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()


def _run(*command: str) -> None:
    if error := _try(*command):
        raise OSError(f"{' '.join(command)}: {error}")
