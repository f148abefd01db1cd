"""`mlops ui`: the real programs on free ports; both answer, and nothing outlives the command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlops_assets.adapters.processes import (
    ProcessEndedError,
    Program,
    end_all,
    free_port,
    hold_running,
    members,
    running,
)

ADDRESS = re.compile(r"^(Dagster|MLflow) +(http://127\.0\.0\.1:\d+)$", re.MULTILINE)


def sleeper(tmp_path: Path, program: str) -> Program:
    return Program("sleeper", (sys.executable, "-c", program), "http://127.0.0.1:9", tmp_path / "sleeper.log")


def wait_for(log: Path, text: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, f"{log} never said {text!r}"
        time.sleep(0.05)


# --- the processes alone ----------------------------------------------------------------------------


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port, "127.0.0.1") > port


@pytest.mark.slow
def test_children_of_a_program_end_with_it(tmp_path: Path):
    grandchild = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    program = sleeper(tmp_path, f"{grandchild}; print('up', flush=True); import time; time.sleep(99)")
    with running([program], os.environ) as [started]:
        wait_for(program.log, "up")
        assert len(members(started.group)) == 2
    assert members(started.group) == []


def test_a_program_that_ends_by_itself_is_named_with_its_log(tmp_path: Path):
    program = sleeper(tmp_path, "raise SystemExit(3)")
    with running([program], os.environ) as started:
        started[0].process.wait(timeout=30)
        with pytest.raises(ProcessEndedError) as said:
            hold_running(started)
    assert str(said.value) == (
        f"sleeper ended by itself (exit code 3); everything else is ended too. Read {program.log}."
    )


def test_a_program_that_ignores_ctrl_c_is_ended_all_the_same(tmp_path: Path):
    ignores = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = sleeper(tmp_path, f"{ignores}; print('up', flush=True); import time; time.sleep(99)")
    with running([program], os.environ) as started:
        wait_for(program.log, "up")
        end_all(started, grace_seconds=0.5)
        assert members(started[0].group) == []


# --- the real pages ---------------------------------------------------------------------------------


@contextmanager
def pages(home: Path, output: Path, **how: object) -> Iterator[subprocess.Popen[bytes]]:
    """A running ``mlops ui`` in a home; ended, whatever the test does."""
    environment = {**os.environ, "MLOPS_HOME": str(home), "MLOPS_LANDING": str(home / "landing")}
    command = [sys.executable, "-m", "mlops_assets.cli", "ui", "--port", "38000", "--mlflow-port", "39000"]
    with output.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, **how)  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def children(parent: int) -> list[int]:
    """Process groups that a process leads its children in."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if int(line.split()[1]) == parent]


def ignore_ctrl_c() -> None:
    """What a shell without job control does to a program that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.slow
def test_both_pages_answer_and_ctrl_c_ends_everything(home: Path, tmp_path: Path):
    output = tmp_path / "ui.out"
    with pages(home, output, preexec_fn=ignore_ctrl_c) as process:
        wait_for(output, "Ctrl-C ends both", 300)
        addresses = dict(ADDRESS.findall(output.read_text()))
        for name, path in (("Dagster", "/server_info"), ("MLflow", "/health")):
            with urllib.request.urlopen(addresses[name] + path, timeout=30) as response:
                assert response.status == 200
        groups = children(process.pid)
        assert len(groups) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert [pid for group in groups for pid in members(group)] == []
    assert output.read_text().endswith("ended\n")
    assert (home / "logs" / "dagster.log").is_file() and (home / "logs" / "mlflow.log").is_file()


@pytest.mark.slow
def test_when_one_page_dies_the_other_ends_and_the_command_says_which(home: Path, tmp_path: Path):
    output = tmp_path / "ui.out"
    with pages(home, output) as process:
        wait_for(output, "Ctrl-C ends both", 300)
        groups = children(process.pid)
        for group in groups:
            if b"mlflow" in Path(f"/proc/{group}/cmdline").read_bytes():
                os.killpg(group, signal.SIGKILL)
        assert process.wait(timeout=60) == 1
    assert "MLflow ended by itself" in output.read_text()
    assert [pid for group in groups for pid in members(group)] == []
