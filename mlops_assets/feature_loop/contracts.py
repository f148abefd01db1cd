"""Hold the delivered days of a source against its contract: structure first, then Great Expectations.

Structure (columns, types, key, non-empty, ``available_at`` inside the day) always rejects a file. The suite
``expectations/<contract>.json`` says what values may be; a source decides whether rows that break it are
quarantined or block the day. Great Expectations runs once for many days, with day and key as its index.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from mlops_assets.adapters.engine import frame, quote, rows
from mlops_assets.adapters.stopwatch import measured
from mlops_assets.errors import ContractError
from mlops_assets.service.sources import Source

TABLE_LEVEL = ("expect_table_row_count_to_be_between", "expect_column_mean_to_be_between")
"""Expectations about a whole file (``meta.kind: table``) that a suite may hold."""


@dataclass(frozen=True)
class Expectation:
    """One promise of a suite, in words, with the Great Expectations type and arguments that check it."""

    type: str
    kwargs: Mapping[str, Any]
    severity: str
    is_table_level: bool

    @property
    def measured(self) -> str:
        """For a table-level promise: the name of the number of a day that it is about."""
        return self.type.removeprefix("expect_table_").removeprefix("expect_").removesuffix("_to_be_between") + (
            f"_{self.kwargs['column']}" if "column" in self.kwargs else ""
        )

    def measure(self, delivered: pd.DataFrame) -> "pd.Series[float]":
        """For a table-level promise: that number, per day."""
        column = self.kwargs.get("column", "day")
        how = "mean" if "column" in self.kwargs else "size"
        measured: pd.Series[float] = delivered.groupby("day")[column].agg(how)
        return measured

    @property
    def text(self) -> str:
        """The promise in words; its identity in the ``contracts`` table."""
        limits = {k: v for k, v in self.kwargs.items() if k != "column" and v is not None}
        words = self.type.removeprefix("expect_").removeprefix("column_").replace("_", " ")
        column = f"{self.kwargs['column']}: " if "column" in self.kwargs else ""
        return f"{column}{words}" + (f" {json.dumps(limits, sort_keys=True)}" if limits else "")


@dataclass
class Inspection:
    """What was found in the delivered days of one source.

    ``rejected``: day -> why its file is not used. ``bad_keys``: (day, source key) -> promise it broke, rows to
    leave out. ``results``: one row per day and expectation, columns of table ``contracts``.
    """

    rejected: dict[date, str] = field(default_factory=dict)
    bad_keys: dict[tuple[date, str], str] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)


def load_suite(path: Path) -> list[Expectation]:
    """The expectations of a suite file.

    Raises:
        ContractError: a table-level expectation of a type that cannot be held against many days at once.
    """
    suite = json.loads(path.read_text())
    for item in suite["expectations"]:
        if item.get("meta", {}).get("kind") == "table" and item["type"] not in TABLE_LEVEL:
            raise ContractError(f"{path.name}: '{item['type']}' is not among {', '.join(TABLE_LEVEL)}.")
    return [
        Expectation(
            type=item["type"],
            kwargs=item["kwargs"],
            severity=item.get("severity", "critical"),
            is_table_level=item.get("meta", {}).get("kind") == "table",
        )
        for item in suite["expectations"]
    ]


def source_key_sql(source: Source) -> str:
    """SQL expression of the declared key as one text; null if any part is.

    Where rows may repeat, the second row of a key and those behind it carry their number.
    """
    key = " || '|' || ".join(f"{quote(column)}::varchar" for column in source.key)
    return f"{key} || case when row_copy > 1 then '#' || row_copy else '' end" if source.rows_may_repeat else key


def numbered_copies_sql(source: Source, arrived: str) -> str:
    """SQL of the arrived rows with ``row_copy``, the number of each among those of its key, in the order of their
    values."""
    key, values = (", ".join(quote(column) for column in some) for some in (source.key, source.columns))
    return f"""
        select *, row_number() over (partition by day, {key} order by {values}) as row_copy from {quote(arrived)}
    """


def structure_sql(source: Source, arrived: str) -> str:
    """SQL: per day, how many rows break the key, repeat a key, or claim an impossible instant.

    Reads ``arrived(day, <declared columns>)`` and ``days(day, start_at, end_at)``; returns
    ``(day, n, null_keys, repeated, outside, backwards)``.
    """
    at, event = quote(source.available_at), quote(source.event_at)
    key = source_key_sql(source)
    return f"""
        select a.day, count(*), count(*) filter (where ({key}) is null),
               count({key}) - count(distinct {key}),
               count(*) filter (where {at} is null or not ({at} >= d.start_at and {at} < d.end_at)),
               count(*) filter (where {event} is null or {event} > {at})
        from {quote(arrived)} a join days d using (day) group by a.day order by a.day
    """


def inspect(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    suite: list[Expectation],
    *,
    arrived: str,
    delivered: Mapping[date, str],
    unreadable: Mapping[date, str],
) -> Inspection:
    """Hold temp table ``arrived`` against structure and suite.

    Args:
        delivered: every delivered day -> its file name.
        unreadable: day -> why its file could not be read as declared.
    """
    found = Inspection(rejected=dict(unreadable))
    counts = {row[0]: row[1:] for row in rows(con, structure_sql(source, arrived))}
    for day in delivered:
        if day not in found.rejected:
            fault = _structural_fault(source, counts.get(day, (0, 0, 0, 0, 0)))
            if fault:
                found.rejected[day] = fault
    for day, file in delivered.items():
        fault = found.rejected.get(day)
        found.results.append(_result(source, day, "file has the declared structure", None, "critical", fault, file))
    usable = [day for day in delivered if day not in found.rejected]
    if usable and suite:
        _hold_values(con, source, suite, arrived, usable, found)
    return found


def _structural_fault(source: Source, counts: tuple[int, ...]) -> str | None:
    n, null_keys, repeated, outside, backwards = counts
    key = ", ".join(source.key)
    if n == 0:
        return "the file is empty. Deliver the day again, or leave the file out if nothing happened."
    if null_keys:
        return f"column(s) {key}: {null_keys} of {n} rows have no key. Deliver them with their key."
    if repeated:
        return f"column(s) {key}: {repeated} of {n} rows repeat a key. Deliver every row once."
    if outside:
        return (
            f"column '{source.available_at}': {outside} of {n} rows were not available inside this day. "
            "Put each row into the file of the day on which it could first be read."
        )
    if backwards:
        return f"column '{source.event_at}': {backwards} of {n} rows happened after they were available."
    return None


def usable_rows_sql(source: Source, arrived: str, days: list[date]) -> str:
    """SQL of the rows to be held against the suite, with their key as one text; instants and dates stay as they are."""
    listed = ", ".join(f"DATE '{day}'" for day in days)
    return f"select *, {source_key_sql(source)} as source_key from {quote(arrived)} where day in ({listed})"


def _hold_values(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    suite: list[Expectation],
    arrived: str,
    days: list[date],
    found: Inspection,
) -> None:
    delivered = frame(con, usable_rows_sql(source, arrived, days))
    delivered["day"] = pd.to_datetime(delivered["day"]).dt.strftime("%Y-%m-%d")
    counts = delivered.groupby("day").size()
    broken = validate([e for e in suite if not e.is_table_level], delivered)
    broken |= validate([e for e in suite if e.is_table_level], _daily(suite, delivered))
    bad_rows: dict[date, set[str]] = defaultdict(set)
    for expectation in suite:
        by_day = broken[expectation.text]
        for day in days:
            failures = by_day.get(day.isoformat(), [])
            fault = _value_fault(expectation, failures, int(counts[day.isoformat()]))
            found.results.append(
                _result(
                    source,
                    day,
                    expectation.text,
                    expectation.kwargs.get("column"),
                    expectation.severity,
                    fault,
                )
            )
            if failures and expectation.severity == "critical":
                _judge_failures(source, expectation, day, failures, fault or "", bad_rows, found)
    for day, keys in bad_rows.items():
        share = len(keys) / int(counts[day.isoformat()])
        if share > source.max_bad_share and day not in found.rejected:
            found.rejected[day] = (
                f"{len(keys)} rows ({share:.1%}) break the contract, more than max_bad_share "
                f"{source.max_bad_share:.1%}. First: {found.bad_keys[(day, min(keys))]}"
            )


def _daily(suite: list[Expectation], delivered: pd.DataFrame) -> pd.DataFrame:
    """One row per day: what table-level expectations are held against, so that many days cost one run."""
    measured = {e.measured: e.measure(delivered) for e in suite if e.is_table_level}
    return pd.DataFrame(measured).assign(source_key="file").reset_index(names="day")


def _judge_failures(
    source: Source,
    expectation: Expectation,
    day: date,
    failures: list[tuple[str, Any]],
    fault: str,
    bad_rows: dict[date, set[str]],
    found: Inspection,
) -> None:
    if source.on_bad_row == "block_day" or expectation.is_table_level:
        found.rejected.setdefault(day, fault)
        return
    for key, _value in failures:
        bad_rows[day].add(key)
        found.bad_keys.setdefault((day, key), expectation.text)


def _value_fault(expectation: Expectation, failures: list[tuple[str, Any]], n: int) -> str | None:
    if not failures:
        return None
    where = f"column '{expectation.kwargs['column']}': " if "column" in expectation.kwargs else ""
    seen = ", ".join(dict.fromkeys(str(value) for _key, value in failures[:3]))
    who = "the file breaks" if expectation.is_table_level else f"{len(failures)} of {n} rows break"
    return f"{where}{who} '{expectation.text}' (seen: {seen}). Correct and deliver again."


def _result(
    source: Source,
    day: date,
    text: str,
    column: str | None,
    severity: str,
    fault: str | None,
    observed: str = "",
) -> dict[str, Any]:
    message = f"source '{source.name}', day {day}, {fault}" if fault else ""
    return {
        "day": day,
        "source": source.name,
        "expectation": text,
        "column_name": column,
        "severity": severity,
        "success": fault is None,
        "observed": observed,
        "message": message,
    }


@measured("Great Expectations")
def validate(suite: list[Expectation], data: pd.DataFrame) -> dict[str, dict[str, list[tuple[str, Any]]]]:
    """Run a suite once over many days: expectation text -> day -> the rows (key, value) that break it.

    ``data`` has columns ``day`` and ``source_key`` beside the declared ones; table-level row counts are held
    against the column named by ``Expectation.measured``. A promise that cannot be evaluated is broken every day.
    """
    import great_expectations as gx

    if not suite:
        return {}
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    batch = (
        context.data_sources.add_pandas("arrived")
        .add_dataframe_asset("days")
        .add_batch_definition_whole_dataframe("all")
        .get_batch(batch_parameters={"dataframe": data})
    )
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["day", "source_key"]}
    expectations = [_great_expectation(expectation, place) for place, expectation in enumerate(suite)]
    found = batch.validate(gx.ExpectationSuite(name="contract", expectations=expectations), result_format=form)
    broken: dict[str, dict[str, list[tuple[str, Any]]]] = {}
    for result in found.results:
        checked: Any = result.expectation_config
        expectation = suite[checked.meta["place"]]
        broken[expectation.text] = _failures(expectation, result, data)
    return broken


def _great_expectation(expectation: Expectation, place: int) -> dict[str, Any]:
    """The expectation as Great Expectations takes it; a row count of a day becomes a value of that day's row."""
    form = {"type": expectation.type, "kwargs": dict(expectation.kwargs), "meta": {"place": place}}
    if expectation.is_table_level:
        form["type"] = "expect_column_values_to_be_between"
        form["kwargs"] = {**expectation.kwargs, "column": expectation.measured}
    return form


def _failures(expectation: Expectation, result: Any, data: pd.DataFrame) -> dict[str, list[tuple[str, Any]]]:
    failures: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    if result.success:
        return failures
    if "unexpected_index_list" not in result.result:
        error: Any = next(iter(dict(result.exception_info).values()), {})
        text = error.get("exception_message") if isinstance(error, dict) else str(error)
        for day in data["day"].unique():
            failures[day].append(("file", f"contract broken: {text}"))
        return failures
    column = expectation.measured if expectation.is_table_level else expectation.kwargs.get("column")
    for entry in result.result["unexpected_index_list"]:
        failures[entry["day"]].append((entry["source_key"], entry.get(column)))
    return failures
