"""Measure: one row per column and day, small enough to keep for ever and exact enough to compare.

Everything else that the monitor knows about a column it knows from here: drift never reads raw rows. A week or a
month is the sum of its days, number by number.

Sums are sums of whole numbers (billionths; of squares, trillionths), so that neither the order of the rows nor the
company of other days changes a bit. The sorted ``fsum`` that stood here before was as exact, held every value of a
day in memory and cost ten times as much.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from mlops_assets.adapters.engine import literal, quote, run, slices_sql
from mlops_assets.monitoring_loop.bins import LABEL_BINS, SCORE_BINS, TOP_TEXTS, Bins, counted_sql
from mlops_assets.tables import BY_NAME

ALL = "all"
"""The slice that leaves nobody out."""

SCORE = "score"
"""Name of the score where it stands beside features: as a subject of drift and as a column."""

LABEL = "label"
"""Column of the profiles of label events; their subject is the label version."""

LOG = "log"
"""Subject of what happened to the rows of an external log."""

LARGE = "1e9"
"""From here on the square of a value is summed in whole units, not in trillionths."""
LARGEST = "1e15"
"""A value beyond counts as this one: the sums are whole numbers of 128 bits."""
UNKNOWN_TEXT = 1_000_000


@dataclass(frozen=True)
class FrozenBins:
    """Bins of columns, and the first day on which each counts; before it a column has no histogram."""

    bins: Mapping[str, Bins]
    since: Mapping[str, date]

    def on(self, day: date) -> dict[str, Bins]:
        """The bins that count on a day."""
        return {name: bins for name, bins in self.bins.items() if self.since.get(name, date.min) <= day}


NO_BINS = FrozenBins({}, {})


@dataclass(frozen=True)
class Profiled:
    """One column to be profiled: a number or a text, and its bins if they are known.

    ``parameter`` is how SQL names the edges or texts: 33 columns' edges as text took ten times the time to plan.
    """

    name: str
    is_number: bool
    bins: Bins | None = None
    parameter: str = ""


def profile_features(
    con: duckdb.DuckDBPyConnection,
    *,
    features: str,
    feature_version: str,
    numeric: Sequence[str],
    categorical: Sequence[str],
    days: Sequence[date],
    into: str,
    frozen: FrozenBins = NO_BINS,
    slices: Sequence[str] = (),
    sliced: Collection[str] = (),
) -> None:
    """Insert one row per feature and day into ``into``, in one scan of all columns (two if bins freeze within).

    And one per slice of the columns that are ``sliced``: names in the JSON ``context`` of a row.

    A day without rows gets no row. A number that is not finite counts as null. Categorical features have counts
    only; their sums and bounds are null.

    Args:
        features: relation with ``day``, ``feature_version`` and the named columns.
        feature_version: the rows to read; becomes the subject.
        numeric: columns with numbers.
        categorical: columns with text.
        days: the days to measure; rows of other days are ignored.
        into: temp table of the shape of ``profiles``; created if it is not there.
        frozen: bins of the columns; one without has no histogram.
    """
    if not days or not (numeric or categorical):
        return
    run(con, create_if_absent_sql("profiles", into))
    source = features_of_version_sql(features, feature_version)
    is_number = dict.fromkeys(numeric, True) | dict.fromkeys(categorical, False)
    for some, bins in runs_of_same_bins(days, frozen):
        insert_profiles(con, into, source, "feature_version", is_number, bins, some)
        of_slices = {name: number for name, number in is_number.items() if name in sliced}
        insert_profiles(con, into, source, "feature_version", of_slices, bins, some, slices=slices or None)


def insert_profiles(
    con: duckdb.DuckDBPyConnection,
    into: str,
    source: str,
    subject: str,
    is_number: Mapping[str, bool],
    bins: Mapping[str, Bins],
    days: Sequence[date],
    slices: Sequence[str] | None = (),
) -> None:
    """Insert the profiles of some columns on days that have the same bins: of all rows, or by slices (None: none)."""
    if not is_number or slices is None:
        return
    binned = [name for name in is_number if name in bins]
    columns = [
        Profiled(name, number, bins.get(name), f"${binned.index(name) + 1}" if name in bins else "")
        for name, number in is_number.items()
    ]
    given = [list(bins[name].edges or bins[name].texts) for name in binned]
    run(con, insert_profiles_sql(into, source, subject, columns, days, slices), given)


def runs_of_same_bins(days: Sequence[date], frozen: FrozenBins) -> Iterator[tuple[list[date], dict[str, Bins]]]:
    """The days in groups that have the same bins."""
    groups: dict[tuple[str, ...], list[date]] = {}
    for day in days:
        groups.setdefault(tuple(sorted(frozen.on(day))), []).append(day)
    for some in groups.values():
        yield some, frozen.on(some[0])


def profile_scores(
    con: duckdb.DuckDBPyConnection,
    *,
    predictions: str,
    days: Sequence[date],
    into: str,
    is_chance: bool = True,
    slices: Sequence[str] = (),
) -> None:
    """Insert one row per model version and day into ``into``, and per slice: its score over its predictions of the day.

    ``day`` is the business day of ``logged_at``, the partition of ``predictions``; it is the prediction day
    for every service that scores in batch. The subject is the model version, the column ``score``. A score that is no
    chance (``is_chance``) has no histogram: no bins suit every number.
    """
    if days:
        run(con, create_if_absent_sql("profiles", into))
        bins = {SCORE: SCORE_BINS} if is_chance else {}
        for some in ((), slices or None):
            insert_profiles(con, into, predictions, "model_version", {SCORE: True}, bins, days, slices=some)


def profile_labels(
    con: duckdb.DuckDBPyConnection, *, labels: str, days: Sequence[date], into: str, is_yes_or_no: bool = True
) -> None:
    """Insert one row per label version and day into ``into``: the label events that became known that day.

    A withdrawn label counts as null. What a prediction day's labels say in the end stands in ``quality``
    (``positive_share``); this row says what was learned on the day itself, and never changes.
    """
    if days:
        run(con, create_if_absent_sql("profiles", into))
        source = label_values_sql(labels)
        bins = {LABEL: LABEL_BINS} if is_yes_or_no else {}
        insert_profiles(con, into, source, "label_version", {LABEL: True}, bins, days)


def create_if_absent_sql(table: str, name: str) -> str:
    """SQL that creates an empty temp table of a declared shape unless something of that name is there."""
    columns = ", ".join(f"{quote(column.name)} {column.type}" for column in BY_NAME[table].columns)
    return f"create temp table if not exists {quote(name)} ({columns})"


def features_of_version_sql(features: str, feature_version: str) -> str:
    """SQL of a relation: the rows of one feature version."""
    return f"(select * from {features} where feature_version = {literal(feature_version)})"


def label_values_sql(labels: str) -> str:
    """SQL of a relation: label events with their value under the name of the column."""
    return f"(select day, label_version, value as {LABEL} from {labels})"


def cleaned_sql(column: Profiled) -> str:
    """SQL of the columns that the aggregates of one column read: its value, and for texts its place in the bins."""
    name = quote(column.name)
    if column.is_number:  # -0.0 becomes 0.0
        value = f"greatest(least({name}::double + 0.0, {LARGEST}), -{LARGEST})"
        return f"case when isfinite({name}::double) then {value} end as {name}"
    if column.bins is None:
        return name
    found = f"list_position({column.parameter}::varchar[], {name})"
    place = f"case when {name} is not null then coalesce({found}, {UNKNOWN_TEXT}) end"
    return f"{name}, {place} as {quote(column.name + ' place')}"


def histogram_sql(column: Profiled) -> str:
    """SQL of an aggregate: counts per bin, the open end last; null without bins."""
    if column.bins is None:
        return "null::bigint[]"
    if column.is_number:
        name, edges = quote(column.name), f"{column.parameter}::double[]"
        size = len(column.bins.edges) + 1
    else:
        counted = min(len(column.bins.texts), TOP_TEXTS)
        name, edges = quote(column.name + " place"), str(list(range(1, counted + 1)))
        size = counted + 1
    return f"list_resize(coalesce(map_values(histogram({name}, {edges}))::bigint[], []), {size}, 0)"


def sums_sql(column: Profiled) -> str:
    """SQL of the four number fields of a profile; texts have the same fields, so that both stand in one list."""
    if not column.is_number:
        return "total: null::double, squares: null::double, low: null::double, high: null::double"
    x = quote(column.name)
    return f"""
        total: sum(({x} * 1e9)::hugeint)::double / 1e9,
        squares: sum(case when abs({x}) < {LARGE} then ({x} * {x} * 1e12)::hugeint when {x} is not null then 0 end)
            ::double / 1e12
            + sum(case when abs({x}) >= {LARGE} then ({x} * {x})::hugeint when {x} is not null then 0 end)::double,
        low: min({x}), high: max({x})"""


def profile_sql(column: Profiled) -> str:
    """SQL of one struct that profiles a column."""
    name, bins = quote(column.name), column.bins
    edges = texts = unseen = "null"
    if bins is not None and column.is_number:
        edges = column.parameter
    elif bins is not None:
        texts = column.parameter
        unseen = f"count(*) filter (where {quote(column.name + ' place')} = {UNKNOWN_TEXT})"
    return f"""{{
        column_name: {literal(column.name)},
        nulls: count(*) - count({name}),
        {sums_sql(column)},
        distinct_values: approx_count_distinct({name})::bigint,
        is_constant: coalesce(min({name}) = max({name}), false),
        bins: {"null" if bins is None else literal(bins.version)}::varchar,
        counts: {histogram_sql(column)},
        new_category: {unseen}::bigint,
        edges: {edges}::double[],
        texts: {texts}::varchar[]
    }}"""


def insert_profiles_sql(
    into: str,
    source: str,
    subject: str,
    columns: Sequence[Profiled],
    days: Sequence[date],
    slices: Sequence[str] = (),
) -> str:
    """SQL that inserts the profiles of some columns.

    Reads   ``source(day, <subject>, <columns>)``, with slices also its JSON ``context``; ``subject`` names the column
    with the subject.
    Inserts one row per day, subject and column, or per slice of these. A slice names the version of its bins and leaves
    the bins themselves to the row of all: written out 23 times a day they were most of the table.
    """
    cleaned = ", ".join(cleaned_sql(column) for column in columns)
    structs = ", ".join(profile_sql(column) for column in columns)
    part, kept = literal(ALL), "*"
    if slices:
        part = f"unnest({slices_sql(slices)}[2:])"
        kept = "* replace (null::double[] as edges, null::varchar[] as texts)"
    return f"""
        insert into {quote(into)} by name
        select {kept} from (
            select *, case when edges is not null then counts[1] + counts[-1] end as out_of_range
            from (
                select day, subject, slice, n, unnest(profile)
                from (
                    select day, subject, slice, n, unnest(columns) as profile
                    from (
                        select day, {quote(subject)} as subject, slice, count(*) as n, [{structs}] as columns
                        from (
                            select day, {quote(subject)}, {part} as slice, {cleaned}
                            from {source} where {counted_sql(days)}
                        )
                        group by day, {quote(subject)}, slice
                    )
                )
            )
        )
    """
