"""The rules of time, facts and closings (docs/time-and-facts.md), one story each."""

import hashlib
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from states import assert_same
from toy_stories import copy_of, on, run, states, stored, untrained
from toy_world import (
    CALENDAR,
    FIRST,
    a_service,
    a_world,
    at,
    close,
    deliver,
    deliver_all,
    ledger_state,
    orders,
    scans,
    scans_file,
    span,
)

from mlops_assets import Expected, RequestView
from mlops_assets.adapters.calendar import DEMO_DAY, MICROSECOND, demo_now
from mlops_assets.adapters.engine import open_engine
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.features import ensure_features
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.standing import first_closable
from mlops_assets.closing.world import World
from mlops_assets.day_loop import open_epoch, run_days
from mlops_assets.errors import LeaseHeldError, RangeError
from mlops_assets.people import Closing, close_incident, set_frozen
from mlops_assets.tables import BY_NAME

pytestmark = pytest.mark.slow

DAYS = span(0, 20)


def day(number: int) -> date:
    return DAYS[number]


@pytest.fixture(scope="module")
def eight_days(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Days 0 to 7 closed without trouble, files up to day 11 delivered; stories go on with a copy."""
    world = a_world(tmp_path_factory.mktemp("eight"), untrained())
    deliver_all(world.home.landing, span(0, 11))
    close(world, span(0, 7))
    return world


# --- 1: generations -------------------------------------------------------------------------------------------------


def test_a_redelivered_file_adds_what_changed_and_is_told_at_the_end_of_the_day_that_lists_it(
    eight_days: World, tmp_path: Path
) -> None:
    world = copy_of(eight_days, tmp_path / "w")
    corrected = scans_file(day(4))
    corrected.loc[0, "delay_min"] += 60
    withdrawn, changed = corrected["parcel"].iloc[-1], corrected["parcel"].iloc[0]
    path = deliver(world.home.landing, "scans", day(4), corrected.iloc[:-1])
    close(world, [day(8)])

    second = on(stored(world, "scans"), day(4)).query("generation == 2")
    assert dict(zip(second["source_key"], second["withdrawn"], strict=True)) == {changed: False, withdrawn: True}
    assert len(on(stored(world, "scans"), day(4)).query("generation == 1")) == len(corrected), "nothing is taken away"

    (listed,) = [row for row in world.ledger.rows("known_generations", world.name) if row["generation"] == 2]
    end = CALENDAR.end_of(day(8)) - MICROSECOND
    fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (listed["day"], listed["arrival_day"], listed["fingerprint"]) == (day(8), day(4), fingerprint)
    assert listed["known_at"] == end

    told = on(stored(world, "labels"), day(8))
    late = told[told["source"] == f"scans/{day(4)}/2"].set_index("request_id")
    assert set(late.index) == {changed, withdrawn}, "rows repeated unchanged are not new"
    assert set(late["known_at"]) == {pd.Timestamp(end)}
    assert pd.isna(late.loc[withdrawn, "value"]) and late.loc[changed, "value"] == 1.0


def test_rows_of_a_late_file_are_unseen_by_the_requests_of_the_day_that_lists_it(tmp_path: Path) -> None:
    """The same days three times: scans of day 5 come late, on time, never."""
    worlds = {name: a_world(tmp_path / name, untrained()) for name in ("late", "on time", "never")}
    for name, world in worlds.items():
        deliver_all(world.home.landing, span(0, 7), without=[] if name == "on time" else [("scans", day(5))])
        close(world, span(0, 5))
        if name == "late":
            deliver(world.home.landing, "scans", day(5))
        close(world, span(6, 7))
    features = {name: stored(world, "features").set_index("request_id") for name, world in worlds.items()}
    listing, after = (on(features["late"].reset_index(), day(n))["request_id"] for n in (6, 7))
    rates = {name: table["late_rate_72h"] for name, table in features.items()}
    assert rates["late"][listing].equals(rates["never"][listing])
    assert rates["late"][after].equals(rates["on time"][after])
    assert not rates["late"][after].equals(rates["never"][after]), "the story needs rows that make a difference"


# --- 2: when a day may close ----------------------------------------------------------------------------------------


def test_a_day_waits_for_its_files_by_name_until_its_deadline_and_closes_without_them_then(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained())
    deliver_all(world.home.landing, span(0, 1), without=[("scans", day(1))])
    close(world, [day(0)])
    (world.home.landing / "scans").mkdir()
    (world.home.landing / "scans" / f"{day(1)}.parquet.part").write_text("half of it")
    end = CALENDAR.end_of(day(1))

    def closable(now: datetime) -> tuple[bool, str]:
        then = replace(world, clock=lambda: now)
        found = first_closable(then)
        assert found.day == day(1)
        closed = run_days(then, [day(1)], acts=False, by="the schedule", on_day=lambda report: None)
        assert [report.day for report in closed] == ([day(1)] if found.is_closable else [])
        return found.is_closable, found.reason

    assert closable(end - MICROSECOND) == (False, f"{day(1)} ends at {end} UTC")
    waits = f"{day(1)} waits for scans/{day(1)}.* until {end + timedelta(hours=6)} UTC"
    assert closable(end) == closable(end + timedelta(hours=6) - MICROSECOND) == (False, waits)
    assert closable(end + timedelta(hours=6)) == (True, f"{day(1)} may close")
    assert "scans missing" in stored(world, "verdicts").set_index("day").loc[day(1), "reason"]


def test_a_day_whose_files_are_there_closes_as_soon_as_it_is_over(tmp_path: Path) -> None:
    world = replace(a_world(tmp_path, untrained()), clock=lambda: CALENDAR.end_of(day(0)))
    deliver_all(world.home.landing, [day(0)])
    assert first_closable(world).is_closable


def test_before_its_first_file_a_new_service_closes_nothing_and_later_a_landing_zone_that_is_gone_is_named(
    eight_days: World, tmp_path: Path
) -> None:
    """A wrong folder, or one that is not mounted, would close day after day as missing, and what is closed stays."""
    worlds = a_world(tmp_path / "new", untrained()), copy_of(eight_days, tmp_path / "w")
    shutil.rmtree(worlds[1].home.landing)
    for world in worlds:
        found = first_closable(replace(world, clock=lambda: CALENDAR.end_of(day(9))))
        assert not found.is_closable
        assert f"lies in the landing zone {world.home.landing}. Deliver one" in found.reason
    deliver(worlds[0].home.landing, "scans", day(1))
    assert first_closable(replace(worlds[0], clock=lambda: CALENDAR.end_of(day(9)))).is_closable


def test_a_range_that_would_leave_a_gap_is_refused_and_names_the_day_to_start_at(eight_days: World) -> None:
    with pytest.raises(RangeError) as refused:
        run(eight_days, span(9, 10))
    assert str(refused.value) == (
        f"service 'parcels': {day(9)} cannot be closed before {day(8)}, the first unclosed day. "
        f"Start the range at {day(8)}."
    )


def test_a_mixed_range_recomputes_what_is_closed_and_closes_in_order_up_to_the_first_day_that_waits(
    eight_days: World, tmp_path: Path
) -> None:
    world = replace(copy_of(eight_days, tmp_path / "w"), clock=lambda: CALENDAR.end_of(day(10)))
    ingest_sources(world, span(0, 11))
    (world.home.landing / "orders" / f"{day(10)}.parquet").unlink()
    reports = run(world, span(6, 11))
    assert [(r.day, r.is_new) for r in reports] == [(day(6), False), (day(7), False), (day(8), True), (day(9), True)]
    assert world.first_unclosed() == day(10)


# --- 3: blocked days ------------------------------------------------------------------------------------------------


def test_a_blocked_day_is_never_predicted_while_everything_else_goes_on(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained())
    gone = [("orders", day(3)), ("orders", day(4))]
    deliver_all(world.home.landing, span(0, 9), without=gone)
    close(world, span(0, 6))
    blocked = [day(4), day(5)]
    assert [d for d, kind in states(world).items() if kind == "blocked"] == blocked
    verdicts = on(stored(world, "verdicts"), *blocked)
    assert verdicts[["verdict", "tier", "state"]].drop_duplicates().values.tolist() == [
        ["investigate", "unknown", "blocked"]
    ]
    opened = [(row["cause"], row["day"]) for row in world.ledger.rows("incidents", world.name)]
    assert opened == [("orders", day(4))], "two days, one cause, one incident"
    assert len(on(stored(world, "labels"), *blocked)) > 50, "what happens to parcels is known all the same"
    quality = on(stored(world, "quality"), day(4)).assign(about=lambda q: q["prediction_day"].dt.date)
    assert not quality[quality["about"] == day(3)].query("state == 'final'").empty

    for source, missing in gone:
        deliver(world.home.landing, source, missing)
    close(world, span(7, 9))
    predictions, outcomes = stored(world, "predictions"), stored(world, "outcomes")
    assert not set(blocked) & set(predictions["day"]) and not set(blocked) & set(outcomes["day"])
    assert set(predictions["day"]) == {*span(1, 9)} - {*blocked}
    about = stored(world, "quality").assign(about=lambda q: q["prediction_day"].dt.date).query("window_days == 1")
    gap = about[about["about"].isin(blocked)]
    assert set(gap["about"]) == set(blocked)
    assert gap[["state", "reason"]].drop_duplicates().values.tolist() == [["not_measured", "blocked"]]
    assert [d for d, kind in states(world).items() if kind == "blocked"] == blocked


# --- 4: provisional rows --------------------------------------------------------------------------------------------


def test_rows_beyond_the_last_closing_are_not_seen_and_are_overwritten(eight_days: World, tmp_path: Path) -> None:
    """What a killed run left behind, computed from other files than those that count in the end."""
    clean, other = (copy_of(eight_days, tmp_path / name) for name in ("clean", "other"))
    for number in (8, 9, 10):
        rows = scans_file(day(number))
        deliver(other.home.landing, "scans", day(number), rows.assign(delay_min=rows["delay_min"] + 5))
    close(other, span(8, 10))
    struck = a_world(tmp_path / "struck", eight_days.service)
    copy_of(eight_days, tmp_path / "struck")
    (struck.lake.root / struck.name).rename(tmp_path / "aside")
    (other.lake.root / other.name).rename(struck.lake.root / struck.name)

    assert stored(struck, "predictions")["day"].max() == day(10) and struck.closed_through() == day(7)
    assert_same(eight_days, struck)
    close(clean, span(8, 10))
    close(struck, span(8, 10))
    assert_same(clean, struck)


# --- 5: epochs ------------------------------------------------------------------------------------------------------


def test_a_redo_keeps_what_was_before_it_and_what_people_said_and_sends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = a_service().model.model_copy(update={"first_training": day(9)})
    world = a_world(tmp_path, a_service(model=held))
    deliver_all(world.home.landing, span(0, 10), without=[("orders", day(2)), ("scans", day(8))])
    close(world, span(0, 5))
    close_incident(
        [world],
        "parcels-e1-2024-03-04-open_incident-orders",
        Closing("bad_data"),
        by="Mia",
        reason="the depot was shut",
    )
    close(world, span(6, 7))
    set_frozen(world, True, by="Mia", reason="stocktaking", is_dry_run=False)
    close(world, span(8, 10))
    first = ledger_state(world)
    kinds = [(row["day"], row["kind"]) for row in first["decisions"]]
    assert kinds == [
        (day(3), "open_incident"), (day(4), "escalate"), (day(8), "open_incident"), (day(9), "escalate"),
        (day(9), "hold_retraining"),
    ]  # fmt: skip

    caplog.clear()
    open_epoch(world, day(7), by="Mia")
    assert world.closed_through() == day(6)
    close(world, span(7, 10), acts=False)
    redone = ledger_state(world)
    assert [(row["day"], row["kind"]) for row in redone["decisions"]] == kinds
    assert [row["epoch"] for row in redone["decisions"]] == [1, 1, 2, 2, 2]
    assert [row["epoch"] for row in redone["closings"]] == [1] * 7 + [2] * 4
    assert [row for row in redone["known_generations"] if row["day"] < day(7)] == [
        row for row in first["known_generations"] if row["day"] < day(7)
    ]
    run(world, [])
    alerts = [row for row in world.ledger.rows("actions", world.name) if "incident" in row["decision_id"]]
    assert {row["detail"] for row in alerts if row["state"] == "done"} == {"recorded, not sent: history"}
    assert not [record for record in caplog.records if record.name == "mlops_assets.alerts"]


def test_only_a_closed_day_can_be_redone(eight_days: World) -> None:
    with pytest.raises(RangeError) as refused:
        open_epoch(eight_days, day(8), by="Mia")
    assert str(refused.value) == (
        f"service 'parcels': {day(8)} is not closed, so there is nothing to redo. Closed: {day(0)} to {day(7)}."
    )


# --- 6: feature versions --------------------------------------------------------------------------------------------


def heavier(**changes: object) -> RequestView:
    return RequestView(name="heavier", features={"heavy": "weight_kg * 2"})


@pytest.mark.slow
def test_a_new_declaration_leaves_the_champion_its_own_features_and_is_filled_backwards_for_training(
    tmp_path: Path,
) -> None:
    model = a_service().model.model_copy(update={"first_training": day(9)})
    world = a_world(tmp_path, a_service(model=model))
    deliver_all(world.home.landing, span(0, 17))
    close(world, span(0, 11))
    old = world.service.feature_set.version
    newer = a_world(tmp_path, a_service(model=model, views=(*world.service.views, heavier())))
    new = newer.service.feature_set.version
    before = stored(newer, "predictions")
    assert ensure_features(newer, span(8, 11), "test") == []
    run(newer, span(8, 11))  # closed days stay as they are, under any declaration
    assert not newer.ledger.rows("divergences", newer.name)
    close(newer, span(12, 17))

    declared = {row["feature_version"]: row["text"] for row in newer.ledger.rows("declarations", newer.name)}
    assert set(declared) == {old, new} and declared[old] == world.service.feature_set.model_dump_json()
    champions = [(row["day"], row["feature_version"]) for row in newer.releases() if row["role"] == "champion"]
    assert champions == [(day(9), old), (day(16), new)]

    features, predictions = stored(newer, "features"), stored(newer, "predictions")
    computed = features[features["filled_on"].isna()]
    versions = {d: set(rows["feature_version"]) for d, rows in computed.groupby("day")}
    assert versions == {d: {old, new} if d >= day(12) else {old} for d in span(1, 17)}
    filled = features[features["filled_on"].notna()]
    assert set(filled["feature_version"]) == {new} and set(filled["filled_on"].dt.date) == {day(16)}
    assert set(filled["day"]) == set(span(1, 11))
    beside = filled.merge(features[features["feature_version"] == old], on="request_id", suffixes=("", "_old"))
    assert len(beside) == len(filled) and (beside["heavy"] == 2 * beside["weight_old"]).all()
    assert beside["late_rate_72h"].equals(beside["late_rate_72h_old"]), "each row as known at its own instant"

    assert set(on(predictions, *span(12, 16))["feature_version"]) == {old}
    assert set(on(predictions, day(17))["feature_version"]) == {new}
    pd.testing.assert_frame_equal(on(predictions, *span(0, 11)), before)


# --- 7: virtual time and one writer ---------------------------------------------------------------------------------


def test_while_one_run_writes_a_second_one_is_refused_and_the_schedule_says_why(
    eight_days: World, tmp_path: Path
) -> None:
    world = copy_of(eight_days, tmp_path / "w")
    with world.ledger.lease(world.name, "a replay by Mia"):
        with pytest.raises(LeaseHeldError, match="^service 'parcels' is being written by a replay by Mia "):
            run(a_world(world.home.path, world.service), [day(8)])
        found = first_closable(world)
    assert not found.is_closable and found.day == day(8)
    assert found.reason.startswith("a replay by Mia (process ") and found.reason.endswith(" is writing 'parcels'")
    assert world.closed_through() == day(7)


def test_in_a_replay_a_day_is_acted_on_at_the_start_of_the_next(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained())
    deliver_all(world.home.landing, span(0, 4), without=[("orders", day(2))])
    close(world, span(0, 4))
    done = [row for row in world.ledger.rows("actions", world.name) if row["state"] == "done"]
    told = [row for row in done if "-open_incident-" in row["decision_id"]]
    assert [(row["day"], row["acted_at"]) for row in told] == [(day(3), at(day(4), 0))]
    assert all(row["acted_at"] == CALENDAR.end_of(row["day"]) for row in done)


def test_the_demo_lets_a_day_pass_every_two_minutes_and_never_runs_far_ahead() -> None:
    closed_at = datetime(2026, 5, 1, 12)
    passed = [timedelta(), DEMO_DAY - MICROSECOND, DEMO_DAY, 2 * DEMO_DAY, 100 * DEMO_DAY, -DEMO_DAY]
    found = [demo_now(CALENDAR, day(8), closed_at, closed_at + time) for time in passed]
    assert found == [CALENDAR.start_of(day(8 + n)) for n in (0, 0, 1, 2, 2, 0)]


def test_the_demo_closes_its_next_day_two_minutes_after_the_last(eight_days: World, tmp_path: Path) -> None:
    world = copy_of(eight_days, tmp_path / "w", untrained(clock="demo"))
    closed_at = world.ledger.closings(world.name)[day(7)]["closed_at"]
    clocks = (lambda: closed_at, lambda: closed_at + DEMO_DAY)
    found = [first_closable(replace(world, clock=clock)).reason for clock in clocks]
    assert found == [f"{day(8)} ends at {CALENDAR.end_of(day(8))} UTC", f"{day(8)} may close"]
    assert a_world(tmp_path / "new", untrained(clock="demo")).now() == CALENDAR.end_of(FIRST)


# --- 8: the gate ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gate_that_cannot_tell_says_so_and_leaves_the_champion_in_charge(tmp_path: Path) -> None:
    gate = a_service().model.gate.model_copy(update={"champion_age_days": 300})
    world = a_world(tmp_path, a_service(model=a_service().model.model_copy(update={"gate": gate})))
    deliver_all(world.home.landing, span(0, 17))
    close(world, span(0, 17))
    gates = {row["day"]: row for row in world.ledger.rows("gates", world.name)}
    assert [(d, row["verdict"]) for d, row in gates.items()][-2:] == [(day(9), "PASS"), (day(16), "INCONCLUSIVE")]
    champion = next(row["model_version"] for row in world.releases() if row["role"] == "champion")
    assert (gates[day(9)]["rival"], gates[day(16)]["rival"]) == ("prior", champion)
    measured, why = gates[day(16)]["reasons"]
    assert measured.startswith("brier 0.") and "margin" in measured
    assert why == (
        "no worse, but not better for sure either, and the champion is 7 days old; from 300 days on that is enough"
    )
    assert {row["day"] for row in world.ledger.rows("releases", world.name)} == {day(9)}
    answers = stored(world, "predictions").query("served").groupby("day")["model_version"].unique()
    assert [*answers[day(17)]] == [*answers[day(10)]]


@pytest.mark.slow
def test_too_few_labels_train_nobody_into_service(tmp_path: Path) -> None:
    gate = a_service().model.gate.model_copy(update={"min_labels": 10_000})
    world = a_world(tmp_path, a_service(model=a_service().model.model_copy(update={"gate": gate})))
    deliver_all(world.home.landing, span(0, 10))
    close(world, span(0, 10))
    row = world.ledger.rows("gates", world.name)[-1]
    assert row["verdict"] == "INCONCLUSIVE" and row["reasons"] == [
        "120 mature labels are left to learn from beside the 4 judged days, below min_labels=10000"
    ]
    assert not world.releases() and set(stored(world, "predictions")["role"]) == {"prior"}


# --- 9: edges of the calendar ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_expected_is_not_missed(tmp_path: Path) -> None:
    ended = scans(expected=Expected(first=day(1), last=day(4)))
    world = a_world(tmp_path, untrained(sources=(orders(), ended)))
    deliver_all(world.home.landing, span(0, 4))
    for number in (5, 6):
        deliver(world.home.landing, "orders", day(number))
    close(world, span(0, 6))
    verdicts = stored(world, "verdicts").set_index("day")
    assert set(verdicts["verdict"]) == {"quiet"}
    assert not world.ledger.rows("incidents", world.name)
    assert stored(world, "contracts").query("outcome == 'missing'").empty
    freshness = stored(world, "freshness").query("source == 'scans'")
    assert set(on(freshness, day(0), *span(5, 6))["state"]) == {"not_expected"}
    assert "not_expected" not in set(on(freshness, *span(1, 4))["state"])


def test_a_source_with_a_list_of_days_is_missed_on_those_alone(tmp_path: Path) -> None:
    listed = scans(expected=Expected(cadence="list", days=(day(1), day(2), day(4))))
    world = a_world(tmp_path, untrained(sources=(orders(), listed)))
    deliver_all(world.home.landing, span(0, 5), without=[("scans", day(3)), ("scans", day(4)), ("scans", day(5))])
    close(world, span(0, 5))
    contracts = stored(world, "contracts").query("outcome == 'missing'")
    assert set(contracts["day"]) == {day(4)}
    freshness = stored(world, "freshness").query("view == 'late'").set_index("day")["state"]
    assert [freshness[d] for d in span(3, 5)] == ["not_expected", "stale", "not_expected"]
    assert [(row["day"], row["cause"]) for row in world.ledger.rows("incidents", world.name)] == [(day(4), "scans")]


# --- 10: facts and projections --------------------------------------------------------------------------------------


def test_computing_closed_days_again_changes_nothing_and_decides_nothing(eight_days: World, tmp_path: Path) -> None:
    world = copy_of(eight_days, tmp_path / "w")
    versions, events = world.lake.versions(), ledger_state(world)
    reports = run(world, span(0, 7))
    assert [report.is_new for report in reports] == [False] * 8 and not any(r.decisions for r in reports)
    assert world.lake.versions() == versions and ledger_state(world) == events
    assert not world.ledger.rows("divergences", world.name) and not world.ledger.rows("actions", world.name)


@pytest.mark.parametrize("name", ["features", "freshness", "profiles", "quality", "drift", "verdicts"])
def test_a_derived_table_that_somebody_changed_is_put_right_and_it_is_said(
    name: str, eight_days: World, tmp_path: Path
) -> None:
    world = copy_of(eight_days, tmp_path / "w")
    before = stored(world, name)
    changed = {
        "features": "weight + 1 as weight", "freshness": "age_hours + 1 as age_hours", "profiles": "total + 1 as total",
        "quality": "value + 1 as value", "drift": "value + 1 as value", "verdicts": "'note' as verdict",
    }[name]  # fmt: skip
    tamper(world, name, changed, day(5))
    assert not stored(world, name).equals(before)
    run(world, span(5, 6))
    pd.testing.assert_frame_equal(stored(world, name), before)
    assert_same(eight_days, world)  # readers see it at once, and nothing else became different
    said = {(row["table_name"], row["day"], row["reason"]) for row in world.ledger.rows("divergences", world.name)}
    assert said == {(name, day(5), "a derived value differs; it was rewritten")}


def test_what_a_backfill_put_right_is_seen_by_readers_at_once(eight_days: World, tmp_path: Path) -> None:
    """A closing came after the change, so its version vector names the changed days; none comes after the repair."""
    world = copy_of(eight_days, tmp_path / "w")
    tamper(world, "features", "weight + 1 as weight", day(5))
    tamper(world, "quality", "value + 1 as value", day(5))
    close(world, [day(8)])
    features, quality = (
        f"select * from parcels.{name} where day = '{day(5)}' order by all" for name in ("features", "quality")
    )
    wrong = [ask([world.service], world.home, query).rows for query in (features, quality)]
    run(world, [day(5)])
    right = [ask([world.service], world.home, query).rows for query in (features, quality)]
    assert right == [ask([world.service], eight_days.home, query).rows for query in (features, quality)]
    assert right[0] != wrong[0] and right[1] != wrong[1], "the story needs readers who were misled"
    repaired = {row["table_name"] for row in world.ledger.rows("recomputations", world.name)}
    assert repaired == {"features", "quality", "generations"}


def tamper(world: World, name: str, changed: str, on_day: date) -> None:
    """Change a column on one day of a table behind everybody's back."""
    with open_engine() as con:
        world.lake.view(con, name, BY_NAME[name].columns, first=on_day, last=on_day, is_open=BY_NAME[name].is_open)
        rows = con.sql(f"select * replace ({changed}) from {name}").to_arrow_table()
    world.lake.replace_days(name, [on_day], rows, {"by": "somebody"})


def test_a_fact_that_would_differ_now_is_left_and_it_is_said(eight_days: World, tmp_path: Path) -> None:
    dearer = untrained().model.model_copy(update={"prior": 0.4})
    world = copy_of(eight_days, tmp_path / "w", untrained(model=dearer))
    facts = stored(world, "predictions")
    run(world, [day(5)])
    pd.testing.assert_frame_equal(stored(world, "predictions"), facts)
    said = {row["table_name"]: row["reason"] for row in world.ledger.rows("divergences", world.name)}
    assert said["predictions"] == "a fact would differ; it was not rewritten"


def test_a_file_that_changed_in_the_landing_zone_makes_no_difference_to_closed_days(tmp_path: Path) -> None:
    """Not even to what they say of the file: a quarantined row stays quarantined for the days that missed it."""
    world = a_world(tmp_path, untrained())
    deliver_all(world.home.landing, span(0, 9), without=[("scans", day(2)), ("scans", day(5))])
    bad = scans_file(day(4))
    bad.loc[0, "delay_min"] = 9999.0
    deliver(world.home.landing, "scans", day(4), bad)
    deliver(world.home.landing, "orders", day(5), scans_file(day(5)))
    close(world, span(0, 7))
    before = {name: stored(world, name) for name in ("verdicts", "features", "freshness", "profiles", "quality")}
    tiers = before["verdicts"].set_index("day")["tier"]
    assert [tiers[day(n)] for n in (2, 3, 4, 5, 6)] == ["moderate", "stable", "expected", "moderate", "unknown"]

    for source, number in (("scans", 4), ("scans", 5), ("orders", 5)):
        deliver(world.home.landing, source, day(number))
    deliver(world.home.landing, "scans", day(2), scans_file(day(2)).drop(columns="depot"))  # late, and refused
    close(world, [day(8)])
    run(world, span(0, 7))
    assert not world.ledger.rows("divergences", world.name)
    for name, rows in before.items():
        pd.testing.assert_frame_equal(on(stored(world, name), *span(0, 7)), rows, check_dtype=False, obj=name)


# --- 13: corrections after final ------------------------------------------------------------------------------------


def test_a_correction_of_a_final_day_is_written_under_the_day_that_brought_it(
    eight_days: World, tmp_path: Path
) -> None:
    world = copy_of(eight_days, tmp_path / "w")
    before = {name: stored(world, name) for name in ("quality", "labels", "predictions")}
    corrected = scans_file(day(3))
    corrected["delay_min"] = 60 - corrected["delay_min"]
    deliver(world.home.landing, "scans", day(3), corrected)
    close(world, [day(8)])
    for name, rows in before.items():
        kept = on(stored(world, name), *span(0, 7)).astype(object)  # an all-null column is read back as another type
        nulls = kept.isna(), rows.isna()
        pd.testing.assert_frame_equal(nulls[0], nulls[1], obj=name)
        pd.testing.assert_frame_equal(kept.mask(nulls[0], None), rows.astype(object).mask(nulls[1], None), obj=name)
    told = on(stored(world, "quality"), day(8)).assign(about=lambda q: q["prediction_day"].dt.date)
    restated = told[told["state"] == "restated"]
    windows = {length: set(rows["about"]) for length, rows in restated.groupby("window_days")}
    assert {day(3)} <= windows[1] <= {day(2), day(3)}
    assert windows[7] >= set(span(3, 6)), "every window that holds the day and was final; day 7 is final only now"
    share = "window_days == 1 and metric == 'positive_share' and version == 'served'"
    final = before["quality"].query(share + " and state == 'final'")
    (old,) = final[final["prediction_day"].astype(str).str[:10] == str(day(3))]["value"]
    (new,) = restated[restated["about"] == day(3)].query(share)["value"]
    assert new != old, "the corrected labels are turned round"
    outcomes = on(stored(world, "outcomes"), day(3))
    assert "restated" in set(outcomes["state"])


# --- 14: cold start -------------------------------------------------------------------------------------------------


def test_a_new_service_is_learning_and_nobody_is_asked_to_look(eight_days: World) -> None:
    drift = stored(eight_days, "drift")
    assert set(drift["tier"]) == {"stable"} and set(drift["reason"].str.split(":").str[0]) == {"learning"}
    assert set(stored(eight_days, "verdicts")["verdict"]) == {"quiet"}
    assert not eight_days.ledger.rows("decisions", eight_days.name)
