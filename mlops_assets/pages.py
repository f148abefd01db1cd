"""``mlops ui``: the Dagster and MLflow pages over one home, started together and ended together."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlops_assets.adapters.home import Home
from mlops_assets.adapters.processes import (
    Program,
    free_port,
    hold_running,
    running,
    stopped_by_signals,
    wait_until_all_answer,
)
from mlops_assets.homestead import prepare_home
from mlops_assets.service.service import MLService

START_SECONDS = 240.0
"""How long both pages may take to answer: MLflow needs a minute on a loaded machine."""

WORKSPACE = """\
load_from:
  - python_module:
      module_name: mlops_assets.definitions
      location_name: mlops_assets
"""


def serve_pages(
    home: Home,
    services: Sequence[MLService],
    *,
    host: str,
    port: int,
    mlflow_port: int,
    say: Callable[[str], None],
) -> None:
    """Start both pages, print their addresses, and end everything on Ctrl-C.

    Raises:
        ProcessEndedError: one of them ended by itself or never answered.
    """
    with stopped_by_signals() as is_stopped:
        for _line in prepare_home(home, services):
            pass
        programs = [dagster_program(home, host, free_port(port, host))]
        programs.append(mlflow_program(home, host, free_port(mlflow_port, host, taken=[port_of(programs[0])])))
        say(f"starting Dagster and MLflow; their logs: {programs[0].log}, {programs[1].log}")
        with running(programs, environment(home, os.environ)) as started:
            if wait_until_all_answer(started, seconds=START_SECONDS, is_stopped=is_stopped):
                for program in programs:
                    say(f"{program.name:<8} http://{host}:{port_of(program)}")
                say("Ctrl-C ends both")
            while not is_stopped():
                hold_running(started)
                time.sleep(0.3)
            say("ending Dagster and MLflow")
    say("ended")


def environment(home: Home, given: Mapping[str, str]) -> dict[str, str]:
    """What the pages see: absolute places, and this environment's programs first on the path."""
    return {
        **given,
        "MLOPS_HOME": str(home.path),
        "MLOPS_LANDING": str(home.landing),
        "MLOPS_LEDGER_URL": home.ledger_url,
        "MLFLOW_TRACKING_URI": home.mlflow_uri,
        "DAGSTER_HOME": str(home.dagster),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", "")]),
        "PYTHONUNBUFFERED": "1",
        # Eight idle processes for jobs that nobody here starts.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def dagster_program(home: Home, host: str, port: int) -> Program:
    """Dagster's page and daemon over the workspace file of this folder, or over one in the home."""
    command = (
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-w",
        str(workspace(home)),
        "-h",
        host,
        "-p",
        str(port),
    )
    return Program("Dagster", command, f"http://{host}:{port}/server_info", home.path / "logs" / "dagster.log")


def mlflow_program(home: Home, host: str, port: int) -> Program:
    """MLflow's page over the home's store."""
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", home.mlflow_uri),
        *(
            "--default-artifact-root",
            str(home.artifacts),
            "--workers",
            "1",
            "--host",
            host,
            "--port",
            str(port),
        ),
    )
    return Program("MLflow", command, f"http://{host}:{port}/health", home.path / "logs" / "mlflow.log")


def port_of(program: Program) -> int:
    """The port that a program was told to listen on."""
    return int(program.command[-1])


def workspace(home: Home) -> Path:
    """``workspace.yaml`` of the working folder; without one, one in the home is written."""
    here = Path("workspace.yaml").absolute()
    if here.is_file():
        return here
    written = home.path / "workspace.yaml"
    written.write_text(WORKSPACE, encoding="utf-8")
    return written
