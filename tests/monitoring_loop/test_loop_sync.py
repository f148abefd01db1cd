"""Four clocks that must agree: each way in which the loops part has a name, and is told only then."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime

from mlops_assets.monitoring_loop.loop_sync import Clocks, ModelClock, SourceClock, Sync, compare_clocks

DAY = date(2013, 7, 31)
CHAMPION = ModelClock("m1", date(2013, 6, 30), "snapshot", "f1", "late15_v1 aaaa")
AGREED = Clocks(
    day=DAY,
    inputs="files",
    sources=(SourceClock("weather", datetime(2013, 8, 1, 3), 1.0, 3.0), SourceClock("planes", None, None, None)),
    champion=CHAMPION,
    served={"f1": 900},
    profiled={"f1": (DAY, 900)},
    features="f1",
    label="late15_v1 aaaa",
    newest_mature_day=date(2013, 7, 29),
    label_window_days=2,
    failed={},
)


def told(limit: int | None = 45, **changes: object) -> dict[str, Sync]:
    """The checks that are not stable, by name."""
    rows = compare_clocks(replace(AGREED, **changes), max_model_age_days=limit)
    assert len({row.check for row in rows}) == len(rows)
    return {row.check: row for row in rows if row.tier != "stable"}


def test_loops_that_agree_say_so_and_nothing_else():
    assert told() == {}
    rows = {row.check: row for row in compare_clocks(AGREED, max_model_age_days=45)}
    assert {"data:weather", "training", "label", "monitoring"} <= set(rows), "the four clocks"
    assert (rows["training"].lag_days, rows["training"].fingerprint) == (31, "snapshot")
    assert (rows["label"].clock, rows["label"].lag_days) == ("2013-07-29", 2)


def test_a_label_with_a_new_meaning_is_told_while_the_old_one_is_learned():
    row = told(label="late30_v2 bbbb")["label_semantics"]
    assert row.reason == (
        "label semantics changed from late15_v1 aaaa to late30_v2 bbbb, while m1 still uses the old one"
    )
    retrained = replace(CHAMPION, trained_on=DAY, label="late30_v2 bbbb")
    assert told(label="late30_v2 bbbb", champion=retrained) == {}


def test_a_label_that_changes_its_meaning_and_keeps_its_name_is_told_as_that():
    assert "under the same version name" in told(label="late15_v1 bbbb")["label_semantics"].reason


def test_a_champion_older_than_the_retraining_slo_is_told_from_the_day_after():
    assert "training" not in told(limit=31)
    assert told(limit=30)["training"].reason == "champion m1 is 31 days old, the retraining SLO allows 30"
    assert told(limit=None) == {}


def test_serving_another_feature_version_than_the_trained_one_is_told():
    row = told(served={"f2": 900}, profiled={"f2": (DAY, 900)})["serving_features"]
    assert row.reason == "serving uses feature version f2, m1 was trained on f1"


def test_a_newer_declaration_lags_until_the_next_training_and_is_no_incident():
    assert told(features="f2") == {}
    rows = {row.check: row for row in compare_clocks(replace(AGREED, features="f2"), max_model_age_days=45)}
    assert rows["declared_features"].state == "lags"


def test_a_monitor_that_sees_older_data_than_the_model_is_told():
    old = told(profiled={"f1": (date(2013, 7, 28), 880)})["monitoring"]
    assert (old.lag_days, old.clock) == (3, "2013-07-28") and "data of 2013-07-28" in old.reason
    assert told(profiled={})["monitoring"].reason.startswith("the monitor sees nothing")
    assert told(profiled={"f1": (DAY, 850)})["monitoring"].state == "differs"


def test_events_declared_since_the_training_lag_and_rewritten_ones_are_a_note():
    """The model learned days that the monitor explains by now; what was known then must not read differently today."""
    champion = replace(CHAMPION, events="2 aaaa")
    grown = replace(AGREED, champion=champion, events="3 bbbb", events_then="2 aaaa")
    rows = {row.check: row for row in compare_clocks(grown, max_model_age_days=45)}
    assert (rows["events"].state, rows["events"].tier, rows["events"].fingerprint) == ("lags", "stable", "3 bbbb")
    assert rows["events"].reason == "1 known events were declared after m1 was trained"

    row = told(champion=champion, events="2 cccc", events_then="2 cccc")["events"]
    assert (row.state, row.tier) == ("differs", "expected")
    assert row.reason == "the known events of 2013-06-30 were rewritten since: 2 aaaa then, 2 cccc now"


def test_a_failed_training_is_an_incident():
    row = told(failed={"shop-e1-2013-06-30-retrain": "DeclarationError"})["training_failed"]
    assert row.reason == "training failed: shop-e1-2013-06-30-retrain: DeclarationError"


def test_a_service_without_a_champion_has_nothing_to_compare():
    assert told(champion=None, served={}) == {}
