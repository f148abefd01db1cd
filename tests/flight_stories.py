"""The flight service through its real command line, in a process of its own; shared by the stories about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlops_assets.adapters.home import Home


def home_at(folder: Path) -> Home:
    """Everything in one folder, as ``mlops`` finds it there."""
    return Home(folder, folder / "landing", f"sqlite:///{folder / 'ledger.db'}", f"sqlite:///{folder / 'mlflow.db'}")


def mlops(home: Path, *arguments: str, seconds: float = 600) -> str:
    """What ``mlops`` prints over one home; it must succeed."""
    environment = {**os.environ, "MLOPS_HOME": str(home), "MLOPS_LANDING": str(home / "landing")}
    command = [sys.executable, "-m", "mlops_assets.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(home: Path, query: str) -> list[dict[str, Any]]:
    """The rows that ``mlops sql`` answers."""
    found: list[dict[str, Any]] = json.loads(mlops(home, "sql", "--format", "json", query))
    return found
