"""A training set is what was known at its instant, and its fingerprint says whether it is the same one."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pandas as pd
import pytest
from model_loop.small_world import LABEL

from mlops_assets.model_loop.training_set import Snapshot, build_training_set, read_training_rows

NOON = datetime(2013, 3, 5, 12)
DAY = date(2013, 3, 5)
WINDOW = timedelta(hours=48)


def asked(request_id: str, predicted_at: datetime = NOON, *, speed: float = 1.0, version: str = "v1") -> dict[str, Any]:
    return {
        "day": pd.Timestamp(predicted_at.date()), "request_id": request_id, "feature_version": version,
        "predicted_at": predicted_at, "speed": speed, "carrier_code": "AA",
    }  # fmt: skip


def told(
    request_id: str, value: float | None, *, known_at: datetime = NOON, event_at: datetime = NOON
) -> dict[str, Any]:
    return {
        "day": pd.Timestamp(known_at.date()), "request_id": request_id, "label_version": "late_v1", "value": value,
        "event_at": event_at, "known_at": known_at, "source": "arrivals/1",
    }  # fmt: skip


def build(
    con: duckdb.DuckDBPyConnection,
    features: list[dict[str, Any]],
    labels: list[dict[str, Any]],
    *,
    instant: datetime = NOON + WINDOW,
    judged_days: int = 3,
    window_days: int | None = None,
    bad_days: tuple[date, ...] = (),
) -> Snapshot:
    typed = pd.DataFrame(labels)
    typed["value"] = typed["value"].astype("float64")
    con.register("features", pd.DataFrame(features))
    con.register("labels", typed)
    return build_training_set(
        con, features="features", labels="labels", label=LABEL, instant=instant, day=instant.date(),
        judged_days=judged_days, window_days=window_days, feature_names=("speed", "carrier_code"),
        feature_version="v1", into="ts", bad_days=bad_days,
    )  # fmt: skip


def values(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    rows = read_training_rows(con, "ts")
    return dict(zip(rows["request_id"], rows["value"], strict=True))


def parts(con: duckdb.DuckDBPyConnection) -> dict[date, str]:
    rows = read_training_rows(con, "ts")
    return {day.date(): part for day, part in zip(rows["prediction_day"], rows["part"], strict=True)}


def test_a_request_is_mature_at_the_very_instant_its_window_closes(con):
    microsecond = timedelta(microseconds=1)
    build(con, [asked("at"), asked("after", NOON + microsecond)], [told("at", 1), told("after", 1)])

    assert values(con) == {"at": 1}


def test_a_withdrawn_label_leaves_its_request_out(con):
    later = NOON + timedelta(hours=3)
    build(con, [asked("a"), asked("b")], [told("a", 1), told("a", None, known_at=later), told("b", 0)])

    assert values(con) == {"b": 0}


def test_a_correction_counts_only_if_it_was_known(con):
    features, instant = [asked("a"), asked("b")], NOON + WINDOW
    soon, late = instant, instant + timedelta(microseconds=1)
    labels = [told("a", 0), told("a", 1, known_at=soon), told("b", 0), told("b", 1, known_at=late)]
    build(con, features, labels, instant=instant)

    assert values(con) == {"a": 1, "b": 0}


def test_an_outcome_after_the_window_is_no_label(con):
    late = NOON + WINDOW + timedelta(microseconds=1)
    build(con, [asked("a"), asked("b")], [told("a", 1, event_at=late), told("b", 1)])

    assert values(con) == {"b": 1}


def test_a_file_of_a_later_day_is_not_read_even_if_it_claims_the_same_instant(con):
    midnight = datetime(2013, 3, 8)
    features, labels = [asked("a")], [told("a", 0), told("a", 1, known_at=midnight)]
    con.register("features", pd.DataFrame(features))
    con.register("labels", pd.DataFrame(labels))
    build_training_set(
        con, features="features", labels="labels", label=LABEL, instant=midnight, day=date(2013, 3, 7),
        judged_days=3, window_days=None, feature_names=("speed",), feature_version="v1", into="ts",
    )  # fmt: skip

    assert values(con) == {"a": 0}


def test_rows_of_another_feature_version_are_left_alone(con):
    snapshot = build(con, [asked("a"), asked("a", version="v0", speed=9.0)], [told("a", 1)])

    assert (snapshot.rows, read_training_rows(con, "ts")["speed"].tolist()) == (1, [1.0])


def days_of_requests(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    days = [NOON + timedelta(days=n) for n in range(count)]
    return [asked(f"r{n}", at) for n, at in enumerate(days)], [
        told(f"r{n}", n % 2, known_at=at, event_at=at) for n, at in enumerate(days)
    ]


def test_the_newest_mature_days_are_judged_and_the_rest_is_fitted(con):
    features, labels = days_of_requests(6)
    snapshot = build(con, features, labels, instant=NOON + timedelta(days=6), judged_days=2)

    march = [date(2013, 3, n) for n in (5, 6, 7, 8, 9)]
    assert parts(con) == dict(zip(march, ["fit"] * 3 + ["judged"] * 2, strict=True))
    assert (snapshot.fit_days, snapshot.judged_days) == (3, (march[3], march[4]))
    assert (snapshot.first_day, snapshot.last_day, snapshot.rows, snapshot.positives) == (march[0], march[4], 5, 2)


def test_a_partly_mature_day_waits_for_the_refit(con):
    features, labels = days_of_requests(3)
    evening = NOON + timedelta(days=2, hours=6)
    snapshot = build(con, [*features, asked("open", evening)], labels, instant=NOON + timedelta(days=4), judged_days=1)

    assert list(parts(con).values()) == ["fit", "judged", "refit"]
    assert snapshot.judged_days == (date(2013, 3, 6),)


def test_the_training_window_cuts_old_days(con):
    features, labels = days_of_requests(6)
    snapshot = build(con, features, labels, instant=NOON + timedelta(days=8), window_days=5)

    assert snapshot.first_day == date(2013, 3, 9)


def test_the_fingerprint_follows_every_cell_and_not_the_order(con):
    features, labels = days_of_requests(4)
    one = build(con, features, labels, instant=NOON + timedelta(days=6))
    again = build(con, features[::-1], labels[::-1], instant=NOON + timedelta(days=6))
    features[2]["speed"] += 1e-15
    other = build(con, features, labels, instant=NOON + timedelta(days=6))

    assert one == again
    assert len(one.fingerprint) == 32
    assert one.fingerprint != other.fingerprint
    assert replace(one, fingerprint="") == replace(other, fingerprint="")


@pytest.mark.parametrize("change", ["value", "part"])
def test_the_fingerprint_follows_labels_and_parts(con, change):
    features, labels = days_of_requests(4)
    one = build(con, features, labels, instant=NOON + timedelta(days=6))
    if change == "value":
        labels[0]["value"] = 1.0
    other = build(con, features, labels, instant=NOON + timedelta(days=6), judged_days=2 if change == "part" else 3)

    assert one.fingerprint != other.fingerprint


def test_nothing_mature_is_an_empty_snapshot(con):
    snapshot = build(con, [asked("a")], [told("a", 1)], instant=NOON)

    assert (snapshot.rows, snapshot.first_day, snapshot.judged_days) == (0, None, ())


def test_a_draw_takes_the_same_rows_again_and_keeps_most_of_them_when_the_set_grows(con):
    """A tier that learns from so many rows at most: which ones depends on the seed and the request alone."""

    def drawn(count: int, rows: int = 300, seed: int = 0) -> list[str]:
        ids = [f"r{n:04d}" for n in range(count)]
        build(con, [asked(one) for one in ids], [told(one, 1.0) for one in ids])
        return read_training_rows(con, "ts", max_rows=rows, seed=seed)["request_id"].tolist()

    one = drawn(800)
    assert one == sorted(one) == drawn(800) != drawn(800, seed=1)
    assert len(one) == 300
    assert 200 < len(set(one) & set(drawn(1000))) < 300
    assert len(drawn(800, rows=5000)) == 800


def test_days_that_a_person_called_bad_are_not_learned_from() -> None:
    with duckdb.connect() as con:
        days = [NOON - timedelta(days=back) for back in (2, 1, 0)]
        features = [asked(str(when.day), when) for when in days]
        labels = [told(str(when.day), 1.0, known_at=when, event_at=when) for when in days]
        whole = build(con, features, labels)
        less = build(con, features, labels, bad_days=(days[1].date(),))
        assert set(values(con)) == {str(days[0].day), str(days[2].day)}
        assert whole.fingerprint != less.fingerprint
