"""Programs that ``mlops ui`` starts: each in a process group of its own, all of them ended together."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from mlops_assets.errors import MlopsError

GRACE_SECONDS = 20.0
"""How long a process group may take to end after SIGINT before it is terminated, then killed."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessEndedError(MlopsError):
    """A program that should go on running has ended, or never answered."""


@dataclass(frozen=True)
class Program:
    """One program to run: its name for people, its command, where it answers, and where its log goes."""

    name: str
    command: tuple[str, ...]
    health: str
    log: Path


@dataclass(frozen=True)
class Running:
    """A started program; its process id is also the id of its process group."""

    program: Program
    process: subprocess.Popen[bytes]

    @property
    def group(self) -> int:
        """Id of the process group that the program and everything it starts belongs to."""
        return self.process.pid


def free_port(wanted: int, host: str, taken: Sequence[int] = ()) -> int:
    """The wanted port, or the next one that nobody listens on."""
    for port in range(wanted, wanted + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port not in taken and _binds(probe, host, port):
                return port
    raise ProcessEndedError(f"no port from {wanted} to {wanted + 199} is free on {host}; name another one.")


def _binds(probe: socket.socket, host: str, port: int) -> bool:
    try:
        probe.bind((host, port))
    except OSError:
        return False
    return True


def members(group: int) -> list[int]:
    """Ids of the living processes of a group; one that only waits to be collected does not count."""
    if not Path("/proc/self/stat").exists():
        return [group] if _group_exists(group) else []
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, _parent, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(its_group) == group and state not in "ZX":
                found.append(int(folder.name))
    return found


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM and SIGHUP ask for an end instead of raising; the body asks whether they came.

    A shell without job control starts background programs with SIGINT ignored, which children inherit. A
    signal with a handler is reset to its default in a started program, so this also lets Ctrl-C reach them.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def running(programs: Sequence[Program], environment: Mapping[str, str]) -> Iterator[list[Running]]:
    """Start programs, each the leader of its own session; none of them outlives the body."""
    started: list[Running] = []
    try:
        for program in programs:
            program.log.parent.mkdir(parents=True, exist_ok=True)
            with program.log.open("ab") as log:
                process = subprocess.Popen(
                    program.command,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            started.append(Running(program, process))
        yield started
    finally:
        end_all(started)


def end_all(started: Sequence[Running], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """End every group: SIGINT, after ``grace_seconds`` SIGTERM, then SIGKILL."""
    for number, patience in ((signal.SIGINT, grace_seconds), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for one in started:
            if members(one.group):
                os.killpg(one.group, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for one in started:
                one.process.poll()
            if not any(members(one.group) for one in started):
                return
            time.sleep(0.1)


def wait_until_all_answer(started: Sequence[Running], *, seconds: float, is_stopped: Callable[[], bool]) -> bool:
    """Wait until every program answers; False if a person stopped it meanwhile.

    Raises:
        ProcessEndedError: a program ended, or does not answer in time; its log is named.
    """
    deadline = time.monotonic() + seconds
    waiting = list(started)
    while waiting:
        if is_stopped():
            return False
        hold_running(started)
        waiting = [one for one in waiting if not _answers(one.program.health)]
        if waiting and time.monotonic() > deadline:
            first = waiting[0].program
            raise ProcessEndedError(f"{first.name} did not answer within {seconds:.0f} s; read {first.log}.")
        if waiting:
            time.sleep(0.3)
    return True


def hold_running(started: Sequence[Running]) -> None:
    """Hold that everything still runs.

    Raises:
        ProcessEndedError: naming the program that ended, its exit code and its log.
    """
    for one in started:
        code = one.process.poll()
        if code is not None:
            raise ProcessEndedError(
                f"{one.program.name} ended by itself (exit code {code}); everything else is ended too. "
                f"Read {one.program.log}."
            )


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return bool(response.status < 500)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
