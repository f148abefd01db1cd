"""What is delivered wrong is refused by name, costs the day it feeds and nothing else, and can be put right."""

import os
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from states import state
from toy_stories import looked_at, on, run, states, stored, untrained
from toy_world import (
    CALENDAR,
    a_world,
    close,
    deliver,
    deliver_all,
    orders,
    orders_file,
    scans,
    scans_file,
    span,
)

from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.world import World
from mlops_assets.day_loop import open_epoch

pytestmark = pytest.mark.slow

DAY = span(3, 3)[0]
NEXT = DAY + timedelta(days=1)
LAST = 5
TOY_CONTRACTS = Path(__file__).parent.parent / "toy_contracts"

Spoil = Callable[[Path], None]


def renamed(landing: Path) -> None:
    deliver(landing, "orders", DAY, orders_file(DAY).rename(columns={"weight_kg": "weight"}))


def truncated(landing: Path) -> None:
    path = deliver(landing, "orders", DAY)
    path.write_bytes(path.read_bytes()[:-200])


def scrambled(landing: Path) -> None:
    """The footer that says where everything lies was damaged on the way."""
    path = deliver(landing, "orders", DAY)
    content = path.read_bytes()
    path.write_bytes(content[:-300] + bytes(byte ^ 0x5A for byte in content[-300:-8]) + content[-8:])


def without_bytes(landing: Path) -> None:
    deliver(landing, "orders", DAY).write_bytes(b"")


def without_rows(landing: Path) -> None:
    deliver(landing, "orders", DAY, orders_file(DAY).iloc[:0])


def text_for_a_number(landing: Path) -> None:
    rows = orders_file(DAY)
    deliver(landing, "orders", DAY, rows.assign(weight_kg=rows["weight_kg"].astype(str) + " kg"))


def repeated_rows(landing: Path) -> None:
    rows = orders_file(DAY)
    deliver(landing, "orders", DAY, pd.concat([rows, rows.iloc[:3]]))


def rows_without_key(landing: Path) -> None:
    rows = orders_file(DAY)
    rows.loc[:1, "parcel"] = None
    deliver(landing, "orders", DAY, rows)


def of_another_day(landing: Path) -> None:
    rows = orders_file(DAY)
    rows.loc[:4, "available_at"] = CALENDAR.end_of(DAY)
    deliver(landing, "orders", DAY, rows)


def known_before_it_happened(landing: Path) -> None:
    rows = orders_file(DAY)
    rows.loc[:0, "event_at"] += timedelta(minutes=1)
    deliver(landing, "orders", DAY, rows)


def beyond_the_contract(landing: Path) -> None:
    rows = orders_file(DAY)
    rows.loc[:0, "weight_kg"] = 1048.0
    deliver(landing, "orders", DAY, rows)


def too_few_rows(landing: Path) -> None:
    deliver(landing, "orders", DAY, orders_file(DAY).iloc[:4])


FAULTS: dict[Spoil, str] = {
    renamed: "column 'weight_kg' is missing. The file has 'weight' instead: was it renamed? "
    "Deliver the file with the declared columns.",
    truncated: "the file cannot be read as Parquet (Parquet magic bytes not found in footer. Either the file is "
    "corrupted or this is not a parquet file.). Deliver it again, whole.",
    scrambled: "the file cannot be read as Parquet (Couldn't deserialize thrift: don't know what type: \x0f). "
    "Deliver it again, whole.",
    without_bytes: "the file cannot be read as Parquet (Parquet file size is 0 bytes). Deliver it again, whole.",
    without_rows: "the file is empty. Deliver the day again, or leave the file out if nothing happened.",
    text_for_a_number: "column 'weight_kg' is large_string, declared DOUBLE. Deliver it with the declared type.",
    repeated_rows: "column(s) parcel: 3 of 33 rows repeat a key. Deliver every row once.",
    rows_without_key: "column(s) parcel: 2 of 30 rows have no key. Deliver them with their key.",
    of_another_day: "column 'available_at': 5 of 30 rows were not available inside this day. "
    "Put each row into the file of the day on which it could first be read.",
    known_before_it_happened: "column 'event_at': 1 of 30 rows happened after they were available.",
    beyond_the_contract: "column 'weight_kg': 1 of 30 rows break 'weight_kg: values to be between "
    '{"max_value": 100, "min_value": 0}\' (seen: 1048.0). Correct and deliver again.',
    too_few_rows: "the file breaks 'table row count to be between "
    '{"max_value": 200, "min_value": 5}\' (seen: 4). Correct and deliver again.',
}


def spoiled(folder: Path, spoil: Spoil, **changes: object) -> World:
    world = a_world(folder, untrained(**changes))
    deliver_all(world.home.landing, span(0, LAST))
    spoil(world.home.landing)
    return world


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_a_bad_file_is_refused_by_name_and_blocks_the_day_it_feeds(spoil: Spoil, tmp_path: Path) -> None:
    world = spoiled(tmp_path, spoil)
    content = (world.home.landing / "orders" / f"{DAY}.parquet").read_bytes()
    close(world, span(0, LAST))
    reason = f"source 'orders', day {DAY}, {FAULTS[spoil]}"
    assert looked_at(world, "orders", DAY) == [("rejected", 0, reason)]
    assert states(world) == {day: "blocked" if day == NEXT else "computed" for day in span(0, LAST)}
    assert world.ledger.closings(world.name)[NEXT]["reason"] == reason
    failed = on(stored(world, "contracts"), DAY).query("source == 'orders' and not success")
    assert failed["message"].tolist() == [reason] and failed["outcome"].tolist() == ["rejected"]
    assert set(stored(world, "predictions")["day"]) == {*span(1, LAST)} - {NEXT}
    assert (world.home.landing / "orders" / f"{DAY}.parquet").read_bytes() == content, "what came stays where it lies"


def test_a_missing_file_that_blocks_says_which_one_and_what_to_do(tmp_path: Path) -> None:
    world = spoiled(tmp_path, lambda landing: (landing / "orders" / f"{DAY}.parquet").unlink())
    close(world, span(0, LAST))
    assert states(world)[NEXT] == "blocked"
    assert world.ledger.closings(world.name)[NEXT]["reason"] == (
        f"source 'orders', day {DAY}: no file was there when the day closed"
    )
    (row,) = on(stored(world, "contracts"), DAY).query("source == 'orders'").to_dict("records")
    assert (row["outcome"], row["severity"], row["message"]) == (
        "missing",
        "critical",
        f"source 'orders', day {DAY}: no file orders/{DAY}.* lies in the landing zone. "
        "Deliver it; it counts from the first unclosed day on.",
    )


def test_a_missing_file_of_a_source_that_may_go_stale_is_told_and_predictions_go_on(tmp_path: Path) -> None:
    world = spoiled(tmp_path, lambda landing: (landing / "scans" / f"{DAY}.parquet").unlink())
    close(world, span(0, LAST))
    assert set(states(world).values()) == {"computed"}
    assert len(on(stored(world, "predictions"), DAY, NEXT)) == 60
    verdicts = stored(world, "verdicts").set_index("day")
    assert verdicts.loc[DAY, "verdict"] == "investigate" and verdicts.loc[NEXT, "verdict"] == "quiet"
    assert verdicts.loc[DAY, "reason"] == (
        f"scans missing on {DAY}: source 'scans', day {DAY}: no file was there when the day closed"
    )
    (row,) = on(stored(world, "contracts"), DAY).query("source == 'scans'").to_dict("records")
    assert (row["outcome"], row["severity"]) == ("missing", "warning")


def test_a_few_bad_rows_are_quarantined_whole_and_the_rest_of_the_file_counts(tmp_path: Path) -> None:
    rows = scans_file(DAY)
    rows.loc[[0, 2], "delay_min"] = 9999.0
    world = spoiled(tmp_path, lambda landing: deliver(landing, "scans", DAY, rows))
    close(world, span(0, LAST))
    bad = {rows.loc[0, "parcel"], rows.loc[2, "parcel"]}
    quarantine = stored(world, "quarantine")
    assert set(quarantine["source_key"]) == bad and quarantine["payload"].str.contains("9999.0").all()
    assert set(on(stored(world, "scans"), DAY)["parcel"]) == set(rows["parcel"]) - bad
    assert not set(stored(world, "labels")["request_id"]) & bad
    reason = (
        f"source 'scans', day {DAY}: 2 row(s) quarantined, first for 'delay_min: values to be between "
        '{"max_value": 500, "min_value": -200}\''
    )
    assert looked_at(world, "scans", DAY) == [("accepted", 1, reason)]
    verdict = stored(world, "verdicts").set_index("day").loc[DAY]
    assert (verdict["verdict"], verdict["reason"]) == ("note", f"scans quarantined on {DAY}: {reason}")


def test_more_bad_rows_than_the_source_may_have_reject_the_file(tmp_path: Path) -> None:
    rows = scans_file(DAY)
    bad = rows.index[: len(rows) // 4]
    rows.loc[bad, "depot"] = "east"
    world = spoiled(tmp_path, lambda landing: deliver(landing, "scans", DAY, rows))
    close(world, span(0, LAST))
    assert looked_at(world, "scans", DAY) == [
        (
            "rejected",
            0,
            f"source 'scans', day {DAY}, {len(bad)} rows ({len(bad) / len(rows):.1%}) break the contract, more than "
            'max_bad_share 20.0%. First: depot: values to be in set {"value_set": ["north", "south"]}',
        )
    ]
    assert on(stored(world, "scans"), DAY).empty
    assert states(world)[NEXT] == "computed"


def test_two_files_for_one_day_are_both_left_until_somebody_says_which(tmp_path: Path) -> None:
    world = spoiled(tmp_path, lambda landing: as_csv(landing, "orders", DAY))
    close(world, span(0, 3))
    folder = world.home.landing / "orders"
    names = f"{DAY}.csv and {DAY}.parquet"
    reason = f"source 'orders', day {DAY}, both {names} lie in {folder}. Keep one of them."
    assert looked_at(world, "orders", DAY) == [("rejected", 0, reason)]
    (folder / f"{DAY}.csv").unlink()
    close(world, span(4, LAST))
    assert [outcome for outcome, _generation, _reason in looked_at(world, "orders", DAY)] == ["rejected", "accepted"]
    assert states(world)[NEXT] == "blocked", "delivered on the day it feeds, so known from the end of that day on"


def test_a_bad_second_delivery_leaves_the_first_one_in_force(tmp_path: Path) -> None:
    world = spoiled(tmp_path, lambda landing: None)
    close(world, span(0, 3))
    renamed(world.home.landing)
    close(world, span(4, LAST))
    outcomes = [outcome for outcome, _generation, _reason in looked_at(world, "orders", DAY)]
    assert outcomes == ["accepted", "rejected"]
    assert set(states(world).values()) == {"computed"}
    assert len(on(stored(world, "orders"), DAY)) == 30


def as_csv(landing: Path, source: str, day: date, suffix: str = ".csv") -> None:
    rows = (orders_file if source == "orders" else scans_file)(day)
    path = landing / source / f"{day}{suffix}"
    rows[rows.columns[::-1]].assign(remark="-").to_csv(path, index=False)  # the order of columns means nothing


def as_jsonl(landing: Path, source: str, day: date, suffix: str = ".jsonl") -> None:
    rows = (orders_file if source == "orders" else scans_file)(day)
    times = {column: rows[column].astype(str) for column in rows.columns if column.endswith("_at")}
    rows.assign(**times).to_json(landing / source / f"{day}{suffix}", orient="records", lines=True)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_a_text_file_says_what_a_parquet_file_says(suffix: str, tmp_path: Path) -> None:
    write = as_jsonl if suffix == ".jsonl" else as_csv
    as_parquet, as_text = a_world(tmp_path / "one", untrained()), a_world(tmp_path / "other", untrained())
    for world in (as_parquet, as_text):
        deliver_all(world.home.landing, span(0, LAST))
    for source in ("orders", "scans"):
        (as_text.home.landing / source / f"{DAY}.parquet").unlink()
        write(as_text.home.landing, source, DAY, suffix)
        for world in (as_parquet, as_text):
            ingest_sources(world, span(0, LAST)) if source == "scans" else None
    for source in ("orders", "scans"):
        pd.testing.assert_frame_equal(stored(as_parquet, source), stored(as_text, source))


def as_text(landing: Path, suffix: str, rows: pd.DataFrame) -> Path:
    """The orders of the day as a text file, in place of the Parquet file."""
    (landing / "orders" / f"{DAY}.parquet").unlink()
    path = landing / "orders" / f"{DAY}{suffix}"
    if suffix == ".jsonl":
        times = {column: rows[column].astype(str) for column in rows.columns if column.endswith("_at")}
        rows.assign(**times).to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False)
    return path


def heavy(rows: pd.DataFrame) -> pd.DataFrame:
    weights = rows["weight_kg"].astype(str)
    return rows.assign(weight_kg=weights.where(weights.index > 0, "heavy"))


def tomorrow(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(available_at=rows["available_at"].where(rows.index > 4, CALENDAR.end_of(DAY)))


BAD_ROWS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a column renamed": (
        lambda rows: rows.rename(columns={"weight_kg": "weight"}),
        "column 'weight_kg' is missing. The file has 'weight' instead: was it renamed? "
        "Deliver the file with the declared columns.",
    ),
    "no rows": (
        lambda rows: rows.iloc[:0],
        "the file is empty. Deliver the day again, or leave the file out if nothing happened.",
    ),
    "text for a number": (
        heavy,
        "column 'weight_kg' holds 'heavy', declared DOUBLE. Deliver the file with the declared columns and types.",
    ),
    "rows twice": (lambda rows: pd.concat([rows, rows.iloc[:3]]), FAULTS[repeated_rows]),
    "rows of tomorrow": (tomorrow, FAULTS[of_another_day]),
    "ten times the volume": (
        lambda rows: pd.concat([rows.assign(parcel=rows["parcel"] + f"-{n}") for n in range(10)]),
        'the file breaks \'table row count to be between {"max_value": 200, "min_value": 5}\' (seen: 300). '
        "Correct and deliver again.",
    ),
}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_told_alike_in_every_format_and_a_good_file_repairs_them(
    name: str, suffix: str, tmp_path: Path
) -> None:
    change, words = BAD_ROWS[name]
    world = spoiled(tmp_path, lambda landing: None)
    path = as_text(world.home.landing, suffix, change(orders_file(DAY)))
    ingest_sources(world, span(0, LAST))
    assert looked_at(world, "orders", DAY) == [("rejected", 0, f"source 'orders', day {DAY}, {words}")]
    path.unlink()
    deliver(world.home.landing, "orders", DAY)
    ingest_sources(world, span(0, LAST))
    assert [outcome for outcome, _generation, _reason in looked_at(world, "orders", DAY)] == ["rejected", "accepted"]
    assert len(on(stored(world, "orders"), DAY)) == 30


def test_a_file_that_a_wrong_contract_refused_is_taken_when_it_is_delivered_once_more(tmp_path: Path) -> None:
    shutil.copytree(TOY_CONTRACTS, tmp_path / "contracts")
    suite = tmp_path / "contracts" / "orders.json"
    right = suite.read_text()
    suite.write_text(right.replace('"max_value": 200', '"max_value": 20'))
    world = spoiled(tmp_path / "home", lambda landing: None, contracts=str(tmp_path / "contracts"))
    ingest_sources(world, [DAY])
    suite.write_text(right)
    ingest_sources(world, [DAY])
    assert [outcome for outcome, *_ in looked_at(world, "orders", DAY)] == ["rejected"], "nobody delivered it again"
    os.utime(world.home.landing / "orders" / f"{DAY}.parquet")
    ingest_sources(world, [DAY])
    assert [outcome for outcome, *_ in looked_at(world, "orders", DAY)] == ["rejected", "accepted"]


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 7])


def rename_weight(path: Path) -> None:
    path.write_text(path.read_text().replace("weight_kg", "weight"))


def write_text_for_a_number(path: Path) -> None:
    first = str(orders_file(DAY)["weight_kg"].iloc[0])
    path.write_text(path.read_text().replace(first, "heavy" if path.suffix == ".csv" else '"heavy"', 1))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (rename_weight, ["column 'weight_kg' is missing. The file has 'weight'", "was it renamed?"]),
        (cut_off, ["Deliver"]),
        (write_text_for_a_number, ["heavy", "Deliver the file with the declared columns and types."]),
        (lambda path: path.write_text(""), ["the file is empty. Deliver the day again"]),
    ],
    ids=["renamed", "truncated", "text for a number", "empty"],
)
def test_a_bad_text_file_is_refused_and_not_read_by_guessing(
    suffix: str, spoil: Spoil, words: list[str], tmp_path: Path
) -> None:
    """DuckDB alone takes CSV columns by place, a JSON key that is not there as null, and half a line as the end."""
    world = spoiled(tmp_path, lambda landing: (landing / "orders" / f"{DAY}.parquet").unlink())
    (as_csv if suffix == ".csv" else as_jsonl)(world.home.landing, "orders", DAY)
    spoil(world.home.landing / "orders" / f"{DAY}{suffix}")
    ingest_sources(world, span(0, LAST))
    ((outcome, _generation, reason),) = looked_at(world, "orders", DAY)
    assert outcome == "rejected" and reason.startswith(f"source 'orders', day {DAY}, ")
    assert all(word in reason for word in words), reason
    assert on(stored(world, "orders"), DAY).empty


def test_a_packed_text_file_that_ends_too_early_is_asked_for_again(tmp_path: Path) -> None:
    world = spoiled(tmp_path, lambda landing: (landing / "orders" / f"{DAY}.parquet").unlink())
    packed = world.home.landing / "orders" / f"{DAY}.csv.gz"
    orders_file(DAY).to_csv(packed, index=False)
    cut_off(packed)
    ingest_sources(world, span(0, LAST))
    ((outcome, _generation, reason),) = looked_at(world, "orders", DAY)
    assert outcome == "rejected"
    assert f"source 'orders', day {DAY}, the file cannot be read (" in reason
    assert reason.endswith("Deliver it again, whole.")
    assert on(stored(world, "orders"), DAY).empty


def test_a_file_of_whole_numbers_does_not_round_those_of_the_other_days(tmp_path: Path) -> None:
    """Read together, DuckDB casts all files to the types of the first one."""
    rows = scans_file(span(1, 1)[0])
    whole = rows.assign(delay_min=rows["delay_min"].round().astype("int64"))
    world = spoiled(tmp_path, lambda landing: deliver(landing, "scans", span(1, 1)[0], whole))
    ingest_sources(world, span(0, LAST))
    found = on(stored(world, "scans"), DAY).sort_values("parcel")["delay_min"].tolist()
    assert found == scans_file(DAY).sort_values("parcel")["delay_min"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [truncated, lambda landing: (landing / "scans" / f"{DAY}.parquet").unlink()],
                         ids=["truncated orders", "scans that went stale"])  # fmt: skip
def test_after_repair_and_redo_nothing_tells_that_it_ever_failed(spoil: Spoil, tmp_path: Path) -> None:
    last = 16
    clean, broken = a_world(tmp_path / "clean"), a_world(tmp_path / "broken")
    for world in (clean, broken):
        deliver_all(world.home.landing, span(0, last))
    spoil(broken.home.landing)
    close(clean, span(0, last))
    close(broken, span(0, last))
    deliver_all(broken.home.landing, [DAY])
    open_epoch(broken, DAY, by="Mia")
    close(broken, span(3, last))
    tables, ledger = state(clean)
    redone, redone_ledger = state(broken)
    assert len(ledger["gates"]) >= 1
    for name in tables:
        pd.testing.assert_frame_equal(tables[name], redone[name], check_exact=True, obj=name)
    assert [row["model_version"] for row in ledger["releases"]] == [
        row["model_version"] for row in redone_ledger["releases"]
    ]
    told = [row["decision_id"].replace("-e2-", "-e1-") for row in redone_ledger["decisions"]]
    assert [row["decision_id"] for row in ledger["decisions"]] == told


@pytest.mark.slow
def test_the_champion_goes_on_answering_while_a_source_is_broken(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    deliver_all(world.home.landing, span(0, 13))
    bad = span(11, 11)[0]
    deliver(world.home.landing, "scans", bad, scans_file(bad).rename(columns={"delay_min": "delay"}))
    close(world, span(0, 13))
    holders = [row["model_version"] for row in world.releases() if row["role"] == "champion"]
    assert len(holders) == 1
    answers = stored(world, "predictions").query("served")
    assert set(on(answers, *span(12, 13))["model_version"]) == {holders[0]}
    assert states(world)[bad] == "blocked", "a rejected file blocks the day it feeds, whatever a missing one does"
    assert run(world, span(11, 13)) and not world.ledger.rows("divergences", world.name)


def test_a_source_that_stays_away_for_days_is_one_incident(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained(sources=(orders(), scans())))
    deliver_all(world.home.landing, span(0, 8), without=[("scans", day) for day in span(3, 6)])
    close(world, span(0, 8))
    opened = [(row["cause"], row["day"]) for row in world.ledger.rows("incidents", world.name)]
    assert opened == [("scans", span(3, 3)[0])]
