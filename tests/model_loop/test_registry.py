"""A version exists whole or not at all, once per train key, and only what was stored is ever loaded."""

import hashlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from model_loop import factories
from model_loop.small_world import CATEGORICAL, NAMES, weeks

from mlops_assets.adapters.registry import Registry, RunRecord, StoredModel
from mlops_assets.errors import RegistryError
from mlops_assets.model_loop.training import fit_tier, model_inputs, score
from mlops_assets.service.training import ModelTier

RECORD = RunRecord(
    model_version="2013-01-31-champion-aaaaaaaa", tier="champion", train_key="a" * 64, day=date(2013, 1, 31),
    service="flights", decision_id="retrain-2013-01-31", fingerprint="f" * 32, feature_version="v1",
    label_version="late_v1", gate="PASS: better for sure.", params={"boost__max_iter": "15"},
    metrics={"rows": 1000.0}, judged={"brier": 0.17},
)  # fmt: skip
OTHER = replace(RECORD, model_version="2013-02-28-champion-bbbbbbbb", train_key="b" * 64)


@pytest.fixture(scope="module")
def fitted() -> Any:
    features, labels = weeks(3, 200)
    rows = features.assign(value=labels["value"])
    return fit_tier(ModelTier(factory="model_loop.factories:boosted"), rows, NAMES, CATEGORICAL)


def golden(model: Any) -> tuple[Any, Any]:
    rows = weeks(1, 20)[0]
    return model_inputs(rows, NAMES, CATEGORICAL), score(model, rows, NAMES)


def store(registry: Registry, model: Any, record: RunRecord = RECORD) -> StoredModel:
    return registry.store(record, model, *golden(model))


def model_file(stored: StoredModel) -> Path:
    return Path(urlparse(stored.uri).path, "model.skops")


def runs(registry: Registry) -> list[tuple[str, str]]:
    found = registry._client.search_runs([registry._experiment_id])
    return sorted((run.data.tags["mlops.model_version"], run.info.status) for run in found)


def logged_models(registry: Registry) -> int:
    return len(registry._client.search_logged_models([registry._experiment_id]))


def versions(registry: Registry) -> list[str]:
    return [v.tags["mlops.model_version"] for v in registry._client.search_model_versions(f"name='{registry.name}'")]


def test_a_model_comes_back_with_the_scores_it_had(registry, fitted):
    stored = store(registry, fitted)
    again = registry.load(RECORD.model_version, sha256=stored.sha256)

    rows = weeks(2, 50, seed=5)[0]
    assert score(again, rows, NAMES).tobytes() == score(fitted, rows, NAMES).tobytes()


def test_the_version_names_its_snapshot_gate_and_decision(registry, fitted):
    stored = store(registry, fitted)
    version = registry._client.get_model_version("flights", stored.mlflow_version)
    run = registry._client.get_run(stored.mlflow_run_id)

    assert version.tags == {**RECORD.tags, "mlops.sha256": stored.sha256, "mlops.uri": stored.uri}
    assert version.description == "PASS: better for sure."
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"rows": 1000.0, "judged_brier": 0.17}
    assert run.inputs.dataset_inputs[0].dataset.digest == RECORD.fingerprint


def test_the_same_train_key_is_stored_once(registry, fitted):
    one, two = store(registry, fitted), store(registry, fitted)

    assert one == two == registry.find(RECORD.train_key)
    assert versions(registry) == [RECORD.model_version]
    assert runs(registry) == [(RECORD.model_version, "FINISHED")]


def test_a_candidate_is_a_run_without_a_version_found_again_by_its_key(registry):
    assert registry.record(RECORD) == registry.record(RECORD)
    assert (versions(registry), runs(registry)) == ([], [(RECORD.model_version, "FINISHED")])


def killed_at(registry: Registry, model: Any, point: str) -> int | None:
    """Store in a process of its own that ends, as by ``kill -9``, at a fault point; its exit code."""

    def child() -> None:
        os.environ["MLOPS_FAULT"] = f"{point}:1"
        fresh = Registry(registry.tracking_uri, registry.artifacts)
        fresh.prepare(registry.experiment, registry.name)
        store(fresh, model)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize(
    ("point", "first_run"),
    [
        ("registry.run_started", ["KILLED"]),
        ("registry.model_logged", ["KILLED"]),
        ("registry.version_created", []),
    ],
)
def test_whatever_a_killed_process_left_the_next_attempt_leaves_one_whole_version(registry, fitted, point, first_run):
    assert killed_at(registry, fitted, point) == 137
    assert (RECORD.model_version, "RUNNING") in runs(registry)

    stored = store(registry, fitted)

    assert versions(registry) == [RECORD.model_version]
    assert logged_models(registry) == 1
    assert [status for _, status in runs(registry)] == sorted([*first_run, "FINISHED"])
    assert registry.load(RECORD.model_version, sha256=stored.sha256)


def test_a_changed_model_file_is_refused(registry, fitted):
    stored = store(registry, fitted)
    path = model_file(stored)
    path.write_bytes(path.read_bytes() + b" ")

    with pytest.raises(RegistryError, match="is not the one that was stored: its SHA-256 differs"):
        registry.load(RECORD.model_version, sha256=stored.sha256)
    with pytest.raises(RegistryError, match="SHA-256 differs"):
        store(registry, fitted)


def test_a_missing_model_file_is_named(registry, fitted):
    stored = store(registry, fitted)
    model_file(stored).unlink()

    with pytest.raises(RegistryError, match="the file of model version '2013-01-31-champion-aaaaaaaa' is missing"):
        registry.load(RECORD.model_version, sha256=stored.sha256)


class Shell:
    """What a crafted pickle does when it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.proof),))


def test_a_pickle_is_never_run_even_if_its_checksum_is_right(registry, fitted, tmp_path):
    stored, proof = store(registry, fitted), tmp_path / "it_ran"
    crafted = pickle.dumps(Shell(proof))
    model_file(stored).write_bytes(crafted)

    with pytest.raises(RegistryError, match="is not a skops file; pickles are never loaded"):
        registry.load(RECORD.model_version, sha256=hashlib.sha256(crafted).hexdigest())
    assert not proof.exists()


def test_mlflow_itself_loads_nothing_in_our_processes(registry, fitted):
    """Its loader would take the list of trusted types from the model's own folder."""
    import mlflow.sklearn
    from mlflow.exceptions import MlflowException

    stored = store(registry, fitted)
    with pytest.raises(MlflowException):
        mlflow.sklearn.load_model(stored.uri)


def test_a_model_of_types_that_nobody_trusts_is_not_stored(registry):
    rows = weeks(1, 200)
    inputs = model_inputs(rows[0], ("speed", "load"))
    model = factories.homemade((), (), 0).fit(inputs, rows[1]["value"])

    with pytest.raises(RegistryError, match="Build it from scikit-learn's own parts"):
        registry.store(RECORD, model, inputs.head(5), score(model, inputs.head(5), ("speed", "load")))
    assert versions(registry) == []
    assert runs(registry) == [(RECORD.model_version, "FAILED")]


def test_a_model_that_scores_otherwise_once_loaded_is_not_stored(registry, fitted):
    inputs, scores = golden(fitted)

    with pytest.raises(RegistryError, match="does not come back from its file with the scores it had"):
        registry.store(RECORD, fitted, inputs, scores + 1e-9)
    assert versions(registry) == []


@pytest.fixture
def two_versions(registry: Registry, fitted: Any) -> Iterator[Registry]:
    store(registry, fitted)
    store(registry, fitted, OTHER)
    yield registry


def test_an_alias_moves_and_notes_who_held_it(two_versions):
    two_versions.set_alias("champion", RECORD.model_version)
    two_versions.set_alias("champion", OTHER.model_version)
    two_versions.set_alias("champion", OTHER.model_version)

    assert two_versions.aliases() == {"champion": OTHER.model_version}
    assert two_versions._version(OTHER.model_version).tags["alias.champion.previous"] == RECORD.model_version


def test_aliases_become_what_the_ledger_says_and_a_second_time_nothing_changes(two_versions):
    two_versions.set_alias("fallback", RECORD.model_version)
    expected = {"champion": OTHER.model_version, "fallback": None}

    assert two_versions.reconcile_aliases(expected) == ("champion", "fallback")
    assert two_versions.aliases() == {"champion": OTHER.model_version}
    assert two_versions.reconcile_aliases(expected) == ()


def test_an_alias_is_never_set_to_a_version_that_does_not_exist(registry):
    with pytest.raises(RegistryError, match="model version 'nobody' is not in the registry 'flights'"):
        registry.set_alias("champion", "nobody")


def test_a_name_with_a_quote_is_not_looked_up(registry):
    with pytest.raises(RegistryError, match="it holds a quote"):
        registry.load("x' or name='y", sha256="0")


def test_golden_rows_stand_beside_the_model_bit_by_bit(registry, fitted):
    import json

    stored = store(registry, fitted)
    kept = json.loads((model_file(stored).parent / "extra_files" / "golden.json").read_text())
    inputs, scores = golden(fitted)

    assert kept["columns"] == list(NAMES)
    assert np.array_equal(kept["scores"], scores)
    assert [row[0] for row in kept["rows"]] == inputs["speed"].tolist()
