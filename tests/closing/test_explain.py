"""One prediction can be told from the source rows to the metric rows, and a changed feature gives itself away."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pytest
from toy_stories import on, stored
from toy_world import a_world, close, deliver_all, span

from mlops_assets.closing.world import World
from mlops_assets.errors import NothingToDoError
from mlops_assets.explain import explain_request, story_lines
from mlops_assets.model_loop.contributions import contributions

DAY = span(14, 14)[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Sixteen days of parcels, with a model that answers at the end."""
    made = a_world(tmp_path_factory.mktemp("explained"))
    deliver_all(made.home.landing, span(0, 16))
    close(made, span(0, 16))
    return made


@pytest.mark.slow
def test_the_story_of_a_request_goes_from_source_rows_to_metric_rows(world: World):
    served = on(stored(world, "predictions"), DAY).query("served and role == 'champion'").iloc[0]
    story = explain_request([world], served["request_id"])
    assert json.loads(json.dumps(story))["prediction_day"] == DAY.isoformat()
    assert [row["model_version"] for row in story["answers"] if row["served"]] == [served["model_version"]]
    assert all(row["is_same"] for row in story["features"]) and len(story["features"]) == 4
    late, last = (next(one for one in story["sources"] if one["view"] == view) for view in ("late", "last_scan"))
    assert late["rows"] > last["rows"] == 1
    for one in (late, last):
        assert all(row["available_at"] <= story["predicted_at"] for row in one["newest"])
    assert {row["feature"] for row in story["contributions"]} == {row["name"] for row in story["features"]}
    assert story["versions"][0]["training_set"] and story["versions"][0]["mlflow_version"]
    assert {row["window_days"] for row in story["metrics"] if row["version"] == served["model_version"]} >= {1}
    labels = stored(world, "labels").query("request_id == @served.request_id")
    assert [row["value"] for row in story["labels"]] == labels["value"].tolist()
    text = "\n".join(story_lines(story))
    for words in ("source rows used", "computed again from the sources: as stored", "to the score", "label events"):
        assert words in text


@pytest.mark.slow
def test_a_feature_that_was_changed_behind_our_back_is_named(world: World):
    rows = on(stored(world, "features"), DAY)
    request = rows["request_id"].iloc[0]
    changed = rows.assign(weight=rows["weight"].where(rows["request_id"] != request, rows["weight"] + 1.0))
    table = pa.Table.from_pandas(changed, preserve_index=False)
    world.lake.replace_days("features", [DAY], table, {"who": "somebody"})
    differing = [row["name"] for row in explain_request([world], request)["features"] if not row["is_same"]]
    assert differing == ["weight"]


@pytest.mark.slow
def test_a_request_that_nobody_predicted_is_one_sentence_that_says_where_to_look(world: World):
    with pytest.raises(NothingToDoError, match="no closed day of parcels has a prediction of request 'nobody'"):
        explain_request([world], "nobody")


def test_what_a_feature_did_is_the_score_beside_the_one_of_a_typical_value():
    row = pd.DataFrame({"a": [3.0], "b": [1.0]})
    moved = contributions(row, {"a": 1.0, "b": 1.0}, names=["a", "b"], score=lambda x: (x["a"] * 0.1).to_numpy())
    assert moved.round(9).to_dict() == {"a": 0.2, "b": 0.0}
    assert list(moved.index) == ["a", "b"]
