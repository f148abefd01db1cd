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

from mlops_assets.adapters.engine import literal, on_days_sql, quote, run, slices_sql
from mlops_assets.monitoring_loop.bins import LABEL_BINS, SCORE_BINS, TOP_TEXTS, Bins
from mlops_assets.monitoring_loop.profile_numbers import insert_numbers
from mlops_assets.tables import BY_NAME

ALL = "all"
"""The slice that leaves nobody out."""

SCORE = "score"
"""Name of the score where it stands beside features: as a subject of drift and as a column."""

LABEL = "label"
"""Column of the profiles of label events; their subject is the label version."""

LOG = "log"
"""Subject of what happened to the rows of an external log."""


@dataclass(frozen=True)
class FrozenBins:
    """Bins of columns, and the first day on which each counts; before it a column has no histogram."""

    bins: Mapping[str, Bins]
    since: Mapping[str, date]

    def on(self, day: date) -> dict[str, Bins]:
        """The bins that count on a day."""
        return {name: bins for name, bins in self.bins.items() if self.since.get(name, date.min) <= day}


NO_BINS = FrozenBins({}, {})


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
    numbers = {name: bins.get(name) for name, number in is_number.items() if number}
    texts = [name for name, number in is_number.items() if not number]
    if numbers:
        insert_numbers(con, into, source, subject, numbers, days, slices)
    if texts:
        known = [bins[name].texts if name in bins else None for name in texts]
        versions = [bins[name].version if name in bins else None for name in texts]
        run(con, insert_texts_sql(into, source, subject, texts, days, slices), [texts, versions, known])


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
    """SQL of a relation: the rows of one feature version, whose name is a constant and not read from every row."""
    version = literal(feature_version)
    return f"(select * replace ({version} as feature_version) from {features} where feature_version = {version})"


def label_values_sql(labels: str) -> str:
    """SQL of a relation: label events with their value under the name of the column."""
    return f"(select day, label_version, value as {LABEL} from {labels})"


def insert_texts_sql(
    into: str, source: str, subject: str, texts: Sequence[str], days: Sequence[date], slices: Sequence[str]
) -> str:
    """SQL that inserts the profiles of some columns with texts.

    Reads   ``source(day, <subject>, <texts>)``, with slices also its JSON ``context``; ``subject`` names the column
    with the subject. Parameters: the columns, the version of the bins of each, and its known texts, most frequent
    first; null without bins.
    Inserts one row per day, subject and column, or per slice of these. Equal texts are brought together first, then
    looked up. A slice names the version of its bins and leaves the bins themselves to the row of all: written out 23
    times a day they were most of the table.
    """
    part = f"unnest({slices_sql(slices)}[2:])" if slices else literal(ALL)
    grouped = " union all ".join(
        f"select day, subject, slice, {literal(name)} as column_name, text, count(*) as rows from ("
        f"select day, {quote(subject)} as subject, {part} as slice, {quote(name)}::varchar as text "
        f"from {source} where {on_days_sql(days)}) group by all"
        for name in texts
    )
    places = ", ".join(f"coalesce(sum(rows) filter (where place = {place}), 0)" for place in range(1, TOP_TEXTS + 1))
    return f"""
        insert into {quote(into)} by name
        with grouped as ({grouped}),
        known as (
            select unnest($1::varchar[]) as column_name, unnest($2::varchar[]) as bins, unnest($3::varchar[][]) as texts
        ),
        places as (
            select column_name, unnest(texts) as text, generate_subscripts(texts, 1) as place from known
        ),
        placed as (
            select grouped.*, bins, texts, place
            from grouped join known using (column_name) left join places using (column_name, text)
        ),
        counted as (
            select day, subject, slice, column_name, any_value(bins) as bins, any_value(texts) as texts,
                   sum(rows)::bigint as n, coalesce(sum(rows) filter (where text is null), 0)::bigint as nulls,
                   approx_count_distinct(text)::bigint as distinct_values,
                   coalesce(min(text) = max(text), false) as is_constant,
                   coalesce(sum(rows) filter (where text is not null and place is null), 0)::bigint as unseen,
                   [{places}]::bigint[] as places
            from placed group by day, subject, slice, column_name
        )
        select * exclude (unseen, places) {"replace (null::varchar[] as texts)" if slices else ""},
               case when bins is not null then unseen end as new_category,
               case when bins is not null
                    then places[:len(texts)] || [n - nulls - list_sum(places[:len(texts)])::bigint] end as counts
        from counted
    """
