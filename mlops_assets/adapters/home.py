"""Where everything lives: one folder, named by the environment."""

import os
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.errors import HomeError


@dataclass(frozen=True)
class Home:
    """``$MLOPS_HOME`` (default ``.mlops`` in the working folder) and what lies in it.

    ``$MLOPS_LANDING``, ``$MLOPS_LEDGER_URL`` and ``$MLFLOW_TRACKING_URI`` move a part elsewhere.
    """

    path: Path
    landing: Path
    ledger_url: str
    mlflow_uri: str

    @classmethod
    def from_environment(cls) -> "Home":
        """The home that the environment names, as absolute paths."""
        path = Path(os.environ.get("MLOPS_HOME", ".mlops")).absolute()
        return cls(
            path=path,
            landing=Path(os.environ.get("MLOPS_LANDING", path / "landing")).absolute(),
            ledger_url=os.environ.get("MLOPS_LEDGER_URL", f"sqlite:///{path / 'ledger.db'}"),
            mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{path / 'mlflow.db'}"),
        )

    @classmethod
    def existing(cls) -> "Home":
        """The home that the environment names, which must be there.

        Raises:
            HomeError: it is not: a wrong folder, most of the time.
        """
        home = cls.from_environment()
        if not home.path.is_dir():
            raise HomeError(
                f"there is no home at {home.path}. Go to the folder in which the days were closed, or name its home: "
                "MLOPS_HOME=... A new one is made by `mlops init` and by `mlops replay`."
            )
        return home

    @property
    def tables(self) -> Path:
        """Folder of the Delta tables."""
        return self.path / "tables"

    @property
    def dagster(self) -> Path:
        """``DAGSTER_HOME``."""
        return self.path / "dagster"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts."""
        return self.path / "mlartifacts"
