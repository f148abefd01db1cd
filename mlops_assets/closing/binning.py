"""Which bins the features of a range are counted in: those of the day before, or newly learned ones.

The bins of a day are a function of the days before it, so a block of days, its days one by one, and a range that
was interrupted have the same ones. They are kept in the profiles themselves, so nothing else has to be read.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta

import duckdb

from mlops_assets.adapters.engine import on_days_sql, quote, rows, run
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.bins import (
    SEARCHED_DAYS,
    Bins,
    Learned,
    bins_of_rows,
    days_to_learn,
    learn_bins,
    stored_bins_sql,
    valued_days_sql,
)
from mlops_assets.monitoring_loop.profiles import FrozenBins
from mlops_assets.service.features import FeatureSet
from mlops_assets.tables import BY_NAME, Column


def frozen_bins(
    world: World, con: duckdb.DuckDBPyConnection, feature_sets: Sequence[FeatureSet], *, features: str, days: list[date]
) -> FrozenBins:
    """The bins of every feature of these sets on consecutive days whose rows lie in the relation ``features``."""
    is_number = {name: name not in fs.categorical for fs in feature_sets for name in fs.names}
    carried = _carried(world, con, is_number, min(days))
    missing = {name: is_number[name] for name in sorted(set(is_number) - set(carried))}
    if not missing:
        return FrozenBins(carried, {})
    learned = days_to_learn(_valued(world, con, missing, features, days), days)
    bins = dict(carried)
    for from_days in sorted({found.from_days for found in learned.values()}):
        names = [name for name, found in learned.items() if found.from_days == from_days]
        bins |= _learn(world, con, {name: missing[name] for name in names}, features, from_days)
    return FrozenBins(bins, _since(learned, bins))


def _since(learned: Mapping[str, Learned], bins: Collection[str]) -> dict[str, date]:
    return {name: found.since for name, found in learned.items() if name in bins}


def _carried(world: World, con: duckdb.DuckDBPyConnection, names: Collection[str], first: date) -> dict[str, Bins]:
    """The bins of the newest day with profiled features before ``first``, which mostly is the day before."""
    table = BY_NAME["profiles"]
    newest = world.lake.newest_day(table.name, before=first)
    if newest is None:
        return {}
    for oldest in (newest, first - timedelta(days=SEARCHED_DAYS)):
        world.lake.view(con, table.name, table.columns, name="newest_profiles", first=oldest, last=newest)
        if found := bins_of_rows(rows(con, stored_bins_sql("newest_profiles", names))):
            return found
    return {}


def _valued(
    world: World, con: duckdb.DuckDBPyConnection, missing: Mapping[str, bool], features: str, days: list[date]
) -> dict[str, list[date]]:
    """On which days the columns without bins had values, before the range and within it."""
    table = BY_NAME["profiles"]
    first, last = min(days) - timedelta(days=SEARCHED_DAYS), min(days) - timedelta(days=1)
    world.lake.view(con, table.name, table.columns, name="profiles_before", first=first, last=last)
    valued: dict[str, list[date]] = {name: [] for name in missing}
    for name, day in rows(con, valued_days_sql("profiles_before")) + rows(con, valued_here_sql(features, missing)):
        if name in valued:
            valued[name].append(day)
    return valued


def valued_here_sql(features: str, is_number: Mapping[str, bool]) -> str:
    """SQL of the days of a relation on which columns had values: column, day."""
    valued = ", ".join(
        f"count(*) filter (where {f'isfinite({quote(name)}::double)' if number else f'{quote(name)} is not null'})"
        f" > 0 as {quote(name)}"
        for name, number in is_number.items()
    )
    return f"""
        select name, day from (unpivot (select day, {valued} from {features} group by day)
        on columns(* exclude (day)) into name name value has_values) where has_values
    """


def _learn(
    world: World,
    con: duckdb.DuckDBPyConnection,
    is_number: Mapping[str, bool],
    features: str,
    from_days: Iterable[date],
) -> dict[str, Bins]:
    """Bins of some columns from the rows of some days, stored ones and those of the range."""
    columns = BY_NAME["features"].columns + tuple(
        Column(name, "DOUBLE" if number else "VARCHAR", "feature") for name, number in is_number.items()
    )
    days = sorted(from_days)
    world.lake.view(con, "features", columns, name="features_before", first=days[0], last=days[-1], is_open=True)
    run(con, learning_rows_sql(features, list(is_number), days))
    numeric = [name for name, number in is_number.items() if number]
    return learn_bins(con, "learning_rows", numeric=numeric, categorical=set(is_number) - set(numeric))


def learning_rows_sql(features: str, names: Sequence[str], days: Collection[date]) -> str:
    """SQL of a temp table: some columns on some days, of the stored features and of the range, each day once."""
    named = ", ".join(quote(name) for name in names)
    return f"""
        create or replace temp table learning_rows as
        select {named} from {features} where {on_days_sql(days)} and filled_on is null
        union all by name
        select {named} from features_before
        where {on_days_sql(days)} and filled_on is null and day not in (select day from {features})
    """
