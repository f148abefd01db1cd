"""An engine, and one migrated MLflow store to copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from mlops_assets.adapters.engine import open_engine
from mlops_assets.adapters.registry import Registry


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine() as opened:
        yield opened


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without an experiment: making its tables takes seconds, so it is made once."""
    folder = tmp_path_factory.mktemp("mlflow")
    registry = Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
    registry.prepare("nobody", "nobody")
    return folder / "mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, migrated_store: Path) -> Registry:
    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    opened = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    opened.prepare("flights", "flights")
    return opened
