"""A retraining fits, judges, and releases only what passed; told the same again it does nothing twice."""

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from model_loop.small_world import CATEGORICAL, FIRST, LABEL, NAMES, weeks

from mlops_assets.model_loop.retraining import Retraining, Rival, retrain
from mlops_assets.model_loop.training import score
from mlops_assets.model_loop.training_set import Snapshot, build_training_set
from mlops_assets.service.features import Request, RequestView
from mlops_assets.service.ownership import Duty, Owner, Raci
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Expected, Source
from mlops_assets.service.training import ModelPolicy, ModelTier

DAY = FIRST + timedelta(days=29)
INSTANT = datetime.combine(DAY + timedelta(days=1), datetime.min.time())
ME = Duty(responsible="Me", accountable="Me")


def a_service() -> MLService:
    columns = {"request_id": "VARCHAR", "speed": "DOUBLE", "load": "DOUBLE", "carrier": "VARCHAR", "late": "BOOLEAN"}
    arrivals = Source(
        name="arrivals", description="", key=("request_id",), expected=Expected(first=FIRST), on_missing_day="block",
        contract="arrivals", columns={**columns, "event_at": "TIMESTAMP", "available_at": "TIMESTAMP"},
    )  # fmt: skip
    view = RequestView(
        name="asked", features={"speed": "speed", "load": "load", "carrier_code": "carrier"}, categorical=CATEGORICAL
    )
    return MLService(
        name="flights", purpose="-", kpi="-", owner=Owner(name="Me", email="me@example.com"),
        raci=Raci(model_updates=ME, schema_changes=ME, retraining_cadence=ME, incident_response=ME),
        timezone="UTC", first_day=FIRST, sources=(arrivals,),
        request=Request(
            source="arrivals", request_id="request_id", predicted_at="available_at",
            columns=("speed", "load", "carrier"),
        ),
        views=(view,), label=LABEL,
        model=ModelPolicy(
            champion=ModelTier(factory="model_loop.factories:boosted", seed=1),
            fallback=ModelTier(factory="model_loop.factories:logistic"), prior=0.3,
        ),
    )  # fmt: skip


def snapshot_of(con: Any, days: int = 30) -> Snapshot:
    features, labels = weeks(days, 150)
    con.register("features", features)
    con.register("labels", labels)
    return build_training_set(
        con, features="features", labels="labels", label=LABEL, instant=INSTANT, day=DAY, judged_days=14,
        window_days=None, feature_names=NAMES, feature_version="v1", into="ts",
    )  # fmt: skip


def retrained(
    con: Any, registry: Any, snapshot: Snapshot, rival: Rival | None = None, scores: Any = None
) -> Retraining:
    return retrain(
        con, a_service(), registry, training_table="ts", snapshot=snapshot, day=DAY, decision_id="retrain-1",
        rival=rival, score_rival=scores,
    )  # fmt: skip


def champion(fitted_until: date | None = None) -> Rival:
    return Rival("2012-12-31-champion-00000000", "champion", date(2012, 12, 31), fitted_until)


def test_the_first_training_beats_the_prior_and_releases_both_tiers(con, registry):
    done = retrained(con, registry, snapshot_of(con))

    assert done.verdict.verdict == "PASS"
    assert [one.role for one in done.releases] == ["champion", "fallback"]
    assert done.gate["rival"] == "prior"
    assert {(row["rival"], row["version"], row["days"]) for row in done.evaluation} == {("prior", done.candidate, 14)}
    for one in done.releases:
        model = registry.load(one.model_version, sha256=one.model_sha256)
        assert np.isfinite(score(model, weeks(1, 5)[0], NAMES)).all()
        assert one.model_version == f"{DAY}-{one.role}-{one.train_key[:8]}"


def test_the_same_snapshot_gives_the_same_versions_stored_once(con, registry):
    one = retrained(con, registry, snapshot_of(con))
    again = retrained(con, registry, snapshot_of(con))

    assert one == again
    assert len(registry._client.search_model_versions("name='flights'")) == 2
    assert len(registry._client.search_runs([registry._experiment_id])) == 3


def test_a_candidate_that_is_surely_worse_fails_and_releases_nothing(con, registry):
    def knows_all(rows: pd.DataFrame) -> Any:
        return np.clip(rows["value"].to_numpy(dtype="float64"), 0.1, 0.9)

    done = retrained(con, registry, snapshot_of(con), champion(), knows_all)

    assert (done.verdict.verdict, done.releases) == ("FAIL", ())
    assert registry._client.search_model_versions("name='flights'") == []
    assert len(registry._client.search_runs([registry._experiment_id])) == 1


def test_days_that_the_champion_learned_from_are_not_judged(con, registry):
    def half(rows: pd.DataFrame) -> Any:
        return np.full(len(rows), 0.5)

    snapshot = snapshot_of(con)
    done = retrained(con, registry, snapshot, champion(snapshot.judged_days[3]), half)
    every = retrained(con, registry, snapshot, champion(snapshot.judged_days[-1]), half)

    assert done.evaluation[0]["days"] == 10
    assert every.verdict.reasons == (
        "0 judged labels, the days that 2012-12-31-champion-00000000 learned from left out, below min_labels=200",
    )


def test_without_days_to_learn_from_nothing_is_fitted(con, registry):
    done = retrained(con, registry, snapshot_of(con, days=10))

    assert done.verdict.verdict == "INCONCLUSIVE"
    assert done.verdict.reasons == (
        "0 mature labels are left to learn from beside the 10 judged days, below min_labels=200",
    )
    assert (done.evaluation, done.releases) == ((), ())
    assert registry._client.search_runs([registry._experiment_id]) == []


@pytest.mark.parametrize("missing", [True, False])
def test_requests_that_the_champion_could_not_score_are_left_out(con, registry, missing):
    def some(rows: pd.DataFrame) -> Any:
        scores = np.full(len(rows), 0.5)
        scores[: 100 if missing else 0] = np.nan
        return scores

    done = retrained(con, registry, snapshot_of(con), champion(), some)

    assert done.evaluation[0]["n"] == 14 * 150 - (100 if missing else 0)
