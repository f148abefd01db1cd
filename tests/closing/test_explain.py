"""One prediction can be told from the source rows to the metric rows, and a changed feature gives itself away."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from toy_log import a_log_service, answers_of, deliver_log
from toy_stories import on, stored
from toy_world import a_world, at, close, deliver, deliver_all, span

from mlops_assets import DegradationRule, QualityPolicy
from mlops_assets.closing.world import World
from mlops_assets.errors import NothingToDoError
from mlops_assets.explain import explain_request, story_lines
from mlops_assets.explain_incidents import Concerned, days_that_matter
from mlops_assets.model_loop.contributions import contributions
from mlops_assets.monitoring_loop.incidents import episodes
from mlops_assets.status import status_lines, status_of
from mlops_assets.summary import summary_lines

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


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Four days of a model that runs elsewhere."""
    made = a_world(tmp_path_factory.mktemp("logged"), a_log_service())
    deliver_log(made.home.landing, span(0, 3))
    close(made, span(0, 3))
    return made


def test_an_answer_of_a_model_that_runs_elsewhere_has_a_story_too(logged: World):
    """Its label, the rows of the day it counted in from then on, in its own arm and in all, and nobody else's."""
    asked = on(stored(logged, "predictions"), span(0, 0)[0]).query("served")
    labels = stored(logged, "labels").query("label_version == 'default_v1'").set_index("request_id")
    request = next(name for name in asked["request_id"] if name in labels.index)
    arm = json.loads(asked.set_index("request_id").loc[request, "context"])["arm"]
    story = explain_request([logged], request)
    text = "\n".join(story_lines(story))
    assert f"  arm={arm}\n" in text and "no decision, served, ok" in text
    assert "the row of the log itself, available " in text and "computed again from the sources: as stored" in text
    counted = {row["version"]: row for row in story["metrics"] if row["window_days"] == 1}
    assert set(counted["served"]["slices"]) == {"all", f"arm={arm}"}
    assert counted["served"]["first_day"] >= labels.loc[request, "day"].isoformat()
    assert set(story["operations"][0]["slices"]) == {"all", f"arm={arm}"}


def test_a_failure_without_a_score_and_without_a_label_counts_in_no_quality(logged: World):
    """The first answer of every day timed out; the monitor still counts it among the failures."""
    story = explain_request([logged], f"{span(3, 3)[0]}-00")
    text = "\n".join(story_lines(story))
    assert "no score  no decision, not served, timeout" in text and story["metrics"] == []
    assert "no row of quality: there is no label" in text and "operations of v7" in text
    assert "the model runs elsewhere: its training and what moved its score are not known here" in text


def test_rows_of_the_request_that_were_kept_apart_are_part_of_its_story(tmp_path: Path):
    """The second answer of day 0 is logged again with another score; the thirty-first timed out."""
    (day,) = span(0, 0)
    rows, world = answers_of(day), a_world(tmp_path, a_log_service())
    rows.loc[30, ["score", "status"]] = [None, "timeout"]
    other = rows[1:2].assign(line=1, score=0.999)
    deliver(world.home.landing, "answers", day, pd.concat([rows, other]))
    close(world, [day])
    text = "\n".join(story_lines(explain_request([world], f"{day}-01")))
    assert ", contradicts the first in score: see table conflicts" in text
    failed = "\n".join(story_lines(explain_request([world], f"{day}-30")))
    assert "no row of quality: there is no score" in failed


def test_a_service_that_only_watches_has_no_champion_of_ours_and_no_training(logged: World):
    lines = list(status_lines(status_of(logged)))
    day = span(3, 3)[0]
    assert "  model           runs elsewhere, watched by its log 'answers'" in lines
    assert f"  answering       v7 (59) on {day}" in lines
    assert not any(word in "\n".join(lines) for word in ("champion", "fallback", "retraining", "prior"))
    assert not any("retrainings" in line for line in summary_lines(logged, None))


@pytest.mark.slow
def test_the_incidents_of_a_request_are_those_of_its_day_and_of_the_rules_that_looked_at_it(tmp_path: Path):
    """On day 3 the log contradicts itself; the quality of day 1 breaks a rule once it is final."""
    rule = DegradationRule(metric="brier", above=0.01, broken_days=1, of_days=1, min_labels=5)
    made = a_world(tmp_path, a_log_service(quality=QualityPolicy(min_labels=5, degradation=(rule,))))
    days = span(0, 6)
    deliver_log(made.home.landing, days)
    rows = answers_of(days[3])
    again = rows[5:8].assign(line=rows["line"] + 5000, score=0.999)
    deliver(made.home.landing, "answers", days[3], pd.concat([rows, again]))
    close(made, days)
    of_day = explain_request([made], f"{days[3]}-20")["incidents"]
    assert [row["why"] for row in of_day if row["cause"] == "answers"] == ["opened that day"]
    later = explain_request([made], f"{days[4]}-20")
    (still_open,) = [row for row in later["incidents"] if row["cause"] == "answers"]
    assert (still_open["why"], still_open["shown_on"]) == ("open that day", [days[3].isoformat()])
    assert f"    showed on {days[3]}" in list(story_lines(later))
    before = explain_request([made], f"{days[2]}-20")["incidents"]
    assert [row for row in before if row["cause"] == "answers"] == [], "it was not open yet"
    ruled = [row for row in explain_request([made], f"{days[1]}-20")["incidents"] if row["cause"] == "quality:brier"]
    assert [row["why"] for row in ruled] == ["it lies in the window of a rule that broke"]
    assert rule.sentence in ruled[0]["text"] and ruled[0]["day"] > days[1].isoformat()


def test_an_incident_has_a_span_for_each_time_it_was_back() -> None:
    first, *others = episodes(
        span(0, 0)[0],
        [(span(n, n)[0], event) for n, event in
         ((0, "seen"), (2, "seen"), (5, "quieted"), (20, "raised"), (20, "seen"), (21, "escalated"), (23, "closed"))],
    )  # fmt: skip
    assert first.seen == (*span(0, 0), *span(2, 2)) and first.last == span(5, 5)[0]
    assert [(one.first, one.last) for one in others] == [(span(20, 20)[0], span(23, 23)[0])]
    assert [first.covers(span(n, n)[0]) for n in (1, 5, 6)] == [True, True, False]


def test_an_incident_concerns_a_request_on_the_day_on_which_what_moved_was_the_request_s(logged: World) -> None:
    """Its features on the day it was logged, its label on the day it was known, nothing that it does not have."""
    day, known = span(1, 2)
    request = Concerned(
        day, at(day, 10), day, (known,), True, frozenset({"v7"}), ("all", "arm=a"), logged.service.feature_set
    )
    concerned = {cause: days_that_matter(logged, request, cause) for cause in (
        "drift:income", "drift:score", "drift:rows", "drift:late", "answers", "operations:answers", "drift:delay_hours",
        "payments", "drift:completeness_1", "operations:labels", "drift:age", "quality:brier",
    )}  # fmt: skip
    assert {cause for cause, days in concerned.items() if days == (day,)} == {
        "drift:income", "drift:score", "drift:rows", "drift:late", "answers", "operations:answers",
    }  # fmt: skip
    assert concerned["drift:delay_hours"] == concerned["payments"] == (known,)
    assert concerned["drift:completeness_1"] == (day + timedelta(days=1),)
    assert concerned["operations:labels"] == (day + timedelta(days=3),), "its label window ends after 72 hours"
    assert concerned["drift:age"] == concerned["quality:brier"] == ()


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
