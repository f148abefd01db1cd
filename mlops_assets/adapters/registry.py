"""MLflow: runs, model files and versions. What is released stands in the ledger; aliases are its projection.

Nothing in MLflow is idempotent by itself: a second training makes a second version, and a killed one leaves a run
RUNNING for ever, half a model, or a model nobody registered. So everything is found or created by ``train_key``,
and a version is created last, in one call that carries all of its tags: a version that exists is whole.

Model files are skops, never pickle. MLflow's own loader takes the list of trusted types from the model's folder;
whoever can write there decides what is run. Here the file's checksum comes from the ledger and the list from
``TRUSTED``. MLflow's loaders are switched off for this process (``MLFLOW_ALLOW_PICKLE_DESERIALIZATION``).
"""

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.fault_points import fault_point
from mlops_assets.errors import RegistryError

TRUSTED = (
    "functools.partial",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)
"""Types that a model file may hold besides those that skops itself trusts."""

REQUIREMENTS = ("scikit-learn", "numpy", "pandas", "scipy", "skops")
"""What a model needs to be loaded. Named outright: MLflow takes 18 s to guess."""

GOLDEN_FILE = "extra_files/golden.json"
MODEL_FILE = "model.skops"


@dataclass(frozen=True)
class RunRecord:
    """What is known about one fit, for the page of its run.

    ``train_key`` names the fit and finds it again; ``judged`` are the numbers of the candidate that the gate
    judged, on a released version's page too; ``gate`` says the verdict in words.
    """

    model_version: str
    tier: str
    train_key: str
    day: date
    service: str
    decision_id: str
    fingerprint: str
    feature_version: str
    label_version: str
    gate: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    judged: Mapping[str, float] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        """Tags that link run and version to snapshot, gate and decision."""
        return {
            "mlops.model_version": self.model_version, "mlops.tier": self.tier, "mlops.train_key": self.train_key,
            "mlops.day": self.day.isoformat(), "mlops.service": self.service,
            "mlops.decision_id": self.decision_id, "mlops.snapshot": self.fingerprint,
            "mlops.feature_version": self.feature_version, "mlops.label_version": self.label_version,
            "mlops.gate": self.gate,
        }  # fmt: skip


@dataclass(frozen=True)
class StoredModel:
    """One whole model version in MLflow: its file's SHA-256 and what MLflow calls it."""

    model_version: str
    train_key: str
    sha256: str
    mlflow_version: str
    mlflow_run_id: str
    uri: str


class Registry:
    """Runs, files and versions of one service in MLflow.

    Args:
        tracking_uri: of MLflow, ``sqlite:///...`` or a server.
        artifacts: local folder of model files, when the experiment is created here.
    """

    def __init__(self, tracking_uri: str, artifacts: Path) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        self.tracking_uri = tracking_uri
        self.artifacts = artifacts.absolute()
        self.experiment = ""
        self.name = ""

    def prepare(self, experiment: str, registered_name: str) -> None:
        """Create database, experiment and registered model if they are not there; say which ones are meant.

        Under a file lock: four processes that open an empty store at once leave one alive.
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.name, self.experiment = registered_name, experiment
        self.__dict__.pop("_experiment_id", None)
        with _locked(self.artifacts / ".prepare.lock"):
            self._experiment_id  # noqa: B018
            self._create_registered_model()

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)

    @cached_property
    def _experiment_id(self) -> str:
        if not self.experiment:
            raise RegistryError("call prepare(experiment, registered_name) first.")
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        location = (self.artifacts / self.experiment).as_uri()
        return str(self._client.create_experiment(self.experiment, artifact_location=location))

    def _create_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        if self._client.search_registered_models(filter_string=f"name = '{self.name}'"):
            return
        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    # --- what is there ----------------------------------------------------------------------------

    def find(self, train_key: str) -> StoredModel | None:
        """The version of this train key, if it was stored; its run is ended if a crash left it open.

        Raises:
            RegistryError: its file is gone or is no longer what was stored.
        """
        version = self._version_by_tag("mlops.train_key", train_key)
        if version is None:
            return None
        stored = _stored(version)
        self._model_bytes(stored.uri, stored.model_version, stored.sha256)
        if self._client.get_run(stored.mlflow_run_id).info.status == "RUNNING":
            self._client.set_terminated(stored.mlflow_run_id, status="FINISHED")
        return stored

    def _version_by_tag(self, tag: str, value: str) -> Any:
        query = f"name = '{self.name}' and tag.`{tag}` = '{_plain(value)}'"
        versions = self._client.search_model_versions(query)
        return min(versions, key=lambda one: int(one.version)) if versions else None

    def _version(self, model_version: str) -> Any:
        version = self._version_by_tag("mlops.model_version", model_version)
        if version is None:
            raise RegistryError(f"model version '{model_version}' is not in the registry '{self.name}'.")
        return version

    # --- runs -------------------------------------------------------------------------------------

    def record(self, record: RunRecord) -> str:
        """A finished run without a model (a candidate), found or created by its train key; its id."""
        for run in self._runs(record.train_key):
            if run.info.status == "FINISHED":
                return str(run.info.run_id)
        self._clear_leftovers(record.train_key)
        with self._run(record) as run_id:
            pass
        return run_id

    def _runs(self, train_key: str) -> Sequence[Any]:
        query = f"tags.`mlops.train_key` = '{_plain(train_key)}'"
        found: Sequence[Any] = self._client.search_runs([self._experiment_id], query)
        return found

    def _clear_leftovers(self, train_key: str) -> None:
        """End what a killed process left behind: its runs become KILLED, its models without a version go."""
        for run in self._runs(train_key):
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, status="KILLED")
        models = self._client.search_logged_models(
            [self._experiment_id], filter_string=f"tags.`mlops.train_key` = '{_plain(train_key)}'"
        )
        for model in models:
            self._client.delete_logged_model(model.model_id)

    @contextmanager
    def _run(self, record: RunRecord) -> Iterator[str]:
        """A run with everything that is known about the fit; KILLED by the next attempt if this one dies."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)
        with mlflow.start_run(
            experiment_id=self._experiment_id, run_name=record.model_version, tags=record.tags
        ) as run:
            fault_point("registry.run_started")
            dataset = _dataset(record)
            mlflow.log_input(dataset, context="training", tags={"fingerprint": record.fingerprint})
            mlflow.log_params(dict(record.params))
            judged = {f"judged_{name}": value for name, value in record.judged.items()}
            mlflow.log_metrics({**record.metrics, **judged}, dataset=dataset)
            yield str(run.info.run_id)

    # --- models -----------------------------------------------------------------------------------

    def store(self, record: RunRecord, model: Any, golden: pd.DataFrame, scores: NDArray[np.float64]) -> StoredModel:
        """Store a fitted model as a version, once per train key.

        Args:
            golden: a few rows of model inputs, kept beside the model with their ``scores`` (9 decimals). The
                stored file is loaded back and must give exactly these before the version exists.

        Raises:
            RegistryError: the model holds types that are not trusted, or does not come back as it was.
        """
        if (found := self.find(record.train_key)) is not None:
            return found
        self._clear_leftovers(record.train_key)
        with self._run(record) as run_id:
            info = self._log_model(record, model, golden, scores)
            fault_point("registry.model_logged")
            uri = str(self._client.get_logged_model(info.model_id).artifact_location)
            stored = self._model_bytes(uri, record.model_version, None)
            _hold_golden(_loaded(stored, record.model_version), golden, scores, record.model_version)
            version = self._register(record, info, run_id, {"mlops.sha256": _sha256(stored), "mlops.uri": uri})
            fault_point("registry.version_created")
        return _stored(version)

    def _log_model(self, record: RunRecord, model: Any, golden: pd.DataFrame, scores: NDArray[np.float64]) -> Any:
        import mlflow.sklearn
        from mlflow.exceptions import MlflowException
        from mlflow.models import infer_signature

        logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory(prefix="mlops-golden-") as folder:
            golden_path = Path(folder) / Path(GOLDEN_FILE).name
            golden_path.write_text(_golden_text(golden, scores))
            try:
                return mlflow.sklearn.log_model(
                    model,
                    name="model",
                    serialization_format="skops",
                    skops_trusted_types=list(TRUSTED),
                    signature=infer_signature(golden, np.column_stack([1 - scores, scores])),
                    pip_requirements=[f"{name}=={installed_version(name)}" for name in REQUIREMENTS],
                    pyfunc_predict_fn="predict_proba",
                    extra_files=[str(golden_path)],
                    tags=record.tags,
                )
            except MlflowException as error:
                raise RegistryError(
                    f"model '{record.model_version}' cannot be stored: {error.message} Build it from scikit-learn's "
                    f"own parts, or have the type added to mlops_assets.adapters.registry.TRUSTED."
                ) from error

    def _register(self, record: RunRecord, info: Any, run_id: str, file: Mapping[str, str]) -> Any:
        return self._client.create_model_version(
            self.name,
            source=info.model_uri,
            run_id=run_id,
            model_id=info.model_id,
            tags={**record.tags, **file},
            description=record.gate,
            await_creation_for=0,
        )

    def load(self, model_version: str, *, sha256: str) -> Any:
        """The fitted estimator of a version.

        Args:
            sha256: of the model file as the ledger has it; nothing is read from a file that differs.

        Raises:
            RegistryError: no such version, its file is missing or changed, or it holds types that are not trusted.
        """
        uri = _stored(self._version(model_version)).uri
        return _loaded(self._model_bytes(uri, model_version, sha256), model_version)

    def _model_bytes(self, uri: str, model_version: str, sha256: str | None) -> bytes:
        """A version's model file, whose checksum must be ``sha256`` if that is given.

        The bytes that were checked are the ones that are loaded: nobody can exchange the file in between.
        """
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        try:
            path = mlflow.artifacts.download_artifacts(f"{uri}/{MODEL_FILE}", tracking_uri=self.tracking_uri)
            stored = Path(path).read_bytes()
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"the file of model version '{model_version}' is missing ({uri}). Bring it back from a backup, "
                "or roll back to another version."
            ) from error
        if sha256 is not None and _sha256(stored) != sha256:
            raise RegistryError(
                f"the file of model version '{model_version}' is not the one that was stored: its SHA-256 differs. "
                "Nothing was loaded. Bring it back from a backup, or roll back to another version."
            )
        return stored

    # --- aliases ----------------------------------------------------------------------------------

    def aliases(self) -> dict[str, str]:
        """Alias -> model version; a version that somebody else registered is called ``mlflow-<number>``."""
        held = self._client.get_registered_model(self.name).aliases
        tags = {number: self._client.get_model_version(self.name, number).tags for number in set(held.values())}
        return {
            alias: tags[number].get("mlops.model_version", f"mlflow-{number}") for alias, number in sorted(held.items())
        }

    def set_alias(self, alias: str, model_version: str) -> None:
        """Point an alias at a version; the version it is taken to notes who held it before.

        Raises:
            RegistryError: no such version.
        """
        version = self._version(model_version)
        previous = self.aliases().get(alias)
        if previous != model_version:
            note = previous or "nobody"
            self._client.set_model_version_tag(self.name, version.version, f"alias.{alias}.previous", note)
            self._client.set_registered_model_alias(self.name, alias, version.version)

    def reconcile_aliases(self, expected: Mapping[str, str | None]) -> tuple[str, ...]:
        """Make aliases what the ledger says; None: nobody holds it. Names the aliases that were changed."""
        held = self.aliases()
        changed = tuple(alias for alias, wanted in sorted(expected.items()) if held.get(alias) != wanted)
        for alias in changed:
            wanted = expected[alias]
            if wanted is None:
                self._client.delete_registered_model_alias(self.name, alias)
            else:
                self.set_alias(alias, wanted)
        return changed


def _stored(version: Any) -> StoredModel:
    tags = version.tags
    return StoredModel(
        model_version=tags["mlops.model_version"], train_key=tags["mlops.train_key"], sha256=tags["mlops.sha256"],
        mlflow_version=str(version.version), mlflow_run_id=str(version.run_id), uri=tags["mlops.uri"],
    )  # fmt: skip


def _dataset(record: RunRecord) -> Any:
    """The snapshot as MLflow names it. MLflow's own digest of a frame misses changed cells; ours is the digest."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = CodeDatasetSource(tags={"table": "training_set", "day": record.day.isoformat(), "service": record.service})
    name = f"{record.service}_{record.day}"
    return MetaDataset(source=source, name=name, digest=record.fingerprint)  # type: ignore[abstract]


def _loaded(stored: bytes, model_version: str) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.loads(stored, trusted=list(TRUSTED))
    except UntrustedTypesFoundException as error:
        raise RegistryError(f"model version '{model_version}' holds types that are not trusted: {error}") from error
    except BadZipFile as error:
        raise RegistryError(
            f"the file of model version '{model_version}' is not a skops file; pickles are never loaded."
        ) from error


def _hold_golden(model: Any, golden: pd.DataFrame, scores: NDArray[np.float64], model_version: str) -> None:
    again = np.round(np.asarray(model.predict_proba(golden)[:, 1], dtype=np.float64), 9)
    if not np.array_equal(again, scores):
        raise RegistryError(f"model '{model_version}' does not come back from its file with the scores it had.")


def _golden_text(golden: pd.DataFrame, scores: NDArray[np.float64]) -> str:
    """Golden rows as JSON with every bit of a double; a missing value is null."""
    whole = golden.astype(object)
    rows = whole.where(whole.notna(), None).to_numpy().tolist()
    return json.dumps({"columns": list(golden.columns), "rows": rows, "scores": scores.tolist()})


def _sha256(stored: bytes) -> str:
    return hashlib.sha256(stored).hexdigest()


def _plain(value: str) -> str:
    """A value that may stand in an MLflow filter.

    Raises:
        RegistryError: it holds a quote.
    """
    if "'" in value or "`" in value:
        raise RegistryError(f"{value!r} cannot be looked up: it holds a quote.")
    return value


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
