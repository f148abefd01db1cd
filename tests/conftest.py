"""What every test may count on: a quiet environment, a home of its own, and honest skips."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

# Before any test imports numpy or MLflow: both read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


def find_pg_ctl() -> str | None:
    """Debian keeps the server programs out of PATH, one folder per major version; the newest wins."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[4]))
    return shutil.which("pg_ctl") or (str(found[-1]) if found else None)


#: marker -> (finds the program, what is absent without it)
PROGRAMS: dict[str, tuple[Callable[[], str | None], str]] = {
    "chromium": (lambda: shutil.which("chromium"), "no `chromium` on PATH"),
    "postgres": (find_pg_ctl, "no `pg_ctl` on PATH or under /usr/lib/postgresql/*/bin"),
    "java": (lambda: shutil.which("java"), "no `java` on PATH"),
}


def skips_are_failures() -> bool:
    return os.environ.get("MLOPS_NO_SKIP", "") not in ("", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, naming what is absent; in CI it runs, and fails, instead."""
    if skips_are_failures():
        return
    for marker, (find, absent) in PROGRAMS.items():
        if find() is None:
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=absent))


def skipped_reports(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return list(reporter.stats.get("skipped", [])) if reporter else []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With MLOPS_NO_SKIP=1 a skipped test fails the session: in CI a skip is a test that nobody runs."""
    is_worker = hasattr(session.config, "workerinput")
    if skips_are_failures() and not is_worker and skipped_reports(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not skips_are_failures():
        return
    for report in skipped_reports(terminalreporter.config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"FAILED by MLOPS_NO_SKIP=1: {report.nodeid} was skipped: {reason}", red=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty $MLOPS_HOME with its landing zone; nothing of the machine's own home is seen."""
    folder = tmp_path / "home"
    landing = folder / "landing"
    landing.mkdir(parents=True)
    monkeypatch.setenv("MLOPS_HOME", str(folder))
    monkeypatch.setenv("MLOPS_LANDING", str(landing))
    return folder


@pytest.fixture
def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The landing zone of the flight example, prepared once per worker; tests link or copy from it, never write."""
    from mlops_assets.examples.flight_delays.prepare import prepare_landing

    folder = tmp_path_factory.mktemp("flights") / "landing"
    prepare_landing(folder)
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A cluster per worker on a Unix socket; not under tmp_path, which the user that runs it cannot enter."""
    found = find_pg_ctl()
    assert found
    programs, is_root = Path(found).resolve().parent, os.geteuid() == 0
    user = "postgres" if is_root else pwd.getpwuid(os.geteuid()).pw_name

    def run(program: str, *words: str) -> None:
        command = [str(programs / program), *words]
        subprocess.run(
            ["runuser", "-u", user, "--", *command] if is_root else command,
            check=True, cwd="/", stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="mlops-pg-") as folder:
        if is_root:
            shutil.chown(folder, user)
        run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", user, "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql+psycopg2://{user}@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-w", "-m", "immediate", "stop")


@pytest.fixture
def postgres_database(postgres_server: str) -> str:
    """The URL of an empty database of its own."""
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as con:
        con.exec_driver_sql(f"create database {name}")
    engine.dispose()
    return postgres_server.replace("/postgres?", f"/{name}?")
