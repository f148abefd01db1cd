"""The series behind an incident, as charts with everything that changed behind them as marks."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import literal, open_engine, put, quote, rows, run
from mlops_assets.closing.roles import ROLE_COLUMNS, told_by_ledger
from mlops_assets.closing.world import World, arrow
from mlops_assets.monitoring_loop.chart import Mark, change_in_words, chart
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.monitoring_loop.operations import OPERATIONS
from mlops_assets.monitoring_loop.shifts import ROWS
from mlops_assets.service.features import RequestView
from mlops_assets.tables import BY_NAME

BEFORE_DAYS, MOST_DAYS = 34, 70
MOST_CHARTS = 3
VALUES = {
    "mean": "total / nullif(n - nulls, 0)",
    "null share": "nulls::double / nullif(n, 0)",
    "rows": "n::double",
}
"""What a chart of a profile shows, as SQL over its numbers."""
OF_OPERATIONS = {
    "labels": "unlabelled::double / nullif(matured, 0)",
    "answers": "error_share",
    "champion_answers": "fallback_share",
    "cost": "cost_per_1000",
}


OF_ALL = ("profiles", "drift", "operations")
"""Tables of which only the slice *all* is drawn."""


def plots_of(world: World, incident: Incident, as_of: date) -> str:
    """Charts of what an incident is about, Markdown; at most three, from five weeks before it was opened."""
    earliest = max(incident.opened_on - timedelta(days=BEFORE_DAYS), world.service.first_day)
    first = max(earliest, as_of - timedelta(days=MOST_DAYS - 1))
    drawn = [
        chart_of(world, name, first, as_of, opened_on=incident.opened_on)
        for name in series_names(incident)[:MOST_CHARTS]
    ]
    return "\n\n".join(f"```\n{one}\n```" for one in drawn)


def series_names(incident: Incident) -> list[str]:
    """The series of an incident: its columns, else what its cause names; ``<column> null share`` if values vanished."""
    if incident.children:
        return [_of_column(column, reason) for column, reason in sorted(incident.children.items())]
    kind, _, name = incident.cause.partition(":")
    if kind == "drift":
        return [_of_column(name, incident.text)]
    return [incident.cause] if kind in ("quality", "objective", OPERATIONS) else [ROWS]


def _of_column(column: str, reason: str) -> str:
    return f"{column} null share" if "without a value" in reason else column


def chart_of(world: World, name: str, first: date, last: date, *, opened_on: date | None = None) -> str:
    """One series over some closed days, with the changes of these days."""
    values, marks = read_series(world, name, first, last), _marks(world, first, last)
    return chart(values, marks, title=name, first=first, last=last, opened_on=opened_on)


def _marks(world: World, first: date, last: date) -> list[Mark]:
    """Everything that changed on some days."""
    return [
        Mark(row["day"], change_in_words(row))
        for row in world.ledger.effective("changes", world.name)
        if first <= row["day"] <= last and (row["before"] or row["day"] > world.service.first_day)
    ]


def chart_up_to(world: World, name: str, last: date) -> str:
    """One series over the ten weeks that end on a closed day."""
    return chart_of(world, name, max(last - timedelta(days=MOST_DAYS - 1), world.service.first_day), last)


def charts_of_assets(world: World, assets: Sequence[str], last: date) -> dict[str, list[str]]:
    """The series that stand for each asset over the ten weeks that end on a closed day, those without values left
    out.
    """
    first = max(last - timedelta(days=MOST_DAYS - 1), world.service.first_day)
    names = {asset: series_of(world, asset) for asset in assets}
    found = read_all(world, sorted({name for of_asset in names.values() for name in of_asset}), first, last)
    marks = _marks(world, first, last) if found else []
    drawn = {
        name: chart(values, marks, title=name, first=first, last=last, opened_on=None)
        for name, values in found.items()
        if values
    }
    return {asset: [drawn[name] for name in of_asset if name in drawn] for asset, of_asset in names.items()}


def series_of(world: World, asset: str) -> list[str]:
    """Names of the series that an asset's page shows."""
    service = world.service
    quality = [f"quality:{metric}" for metric in service.quality.core_metrics]
    kpi = [f"kpi:{service.quality.kpi.name}"] if service.quality.kpi else []
    promised = [f"objective:{objective.of}" for objective in service.operations.objectives]
    sources = sorted({view.source for view in service.views if not isinstance(view, RequestView)})
    clocks = ["training", "label", "monitoring", *(f"data:{source.name}" for source in service.sources)]
    shown = {
        "features": [f"freshness:{source}" for source in sources],
        "profiles": [ROWS, *service.drift.critical_features],
        "predictions": [f"{OPERATIONS}:n"],
        "labels": ["label", *(f"completeness:{outcome}" for outcome in ("positive", "negative"))],
        "quality": [*quality, *kpi],
        "operations": [*(f"{OPERATIONS}:{what}" for what in ("labels", "p95_ms", "cost", "cpu_seconds")), *promised],
        "drift": ["score"],
        "loop_sync": [f"loop_sync:{clock}" for clock in clocks],
        "verdict": ["verdict"],
    }
    return shown.get(asset, [])


def read_series(world: World, name: str, first: date, last: date) -> dict[date, float]:
    """Day -> value of a series: a column, or ``<table>:<what>`` as ``known_series`` lists them."""
    return read_all(world, [name], first, last)[name]


def read_all(world: World, names: Sequence[str], first: date, last: date) -> dict[str, dict[date, float]]:
    """Several series by name; a table of many of them is opened once."""
    found: dict[str, dict[date, float]] = {}
    asked = {name: _asked(world, name) for name in names}
    with open_engine() as con:
        for table in sorted({table for table, _ in asked.values()}):
            world.lake.view(con, table, BY_NAME[table].columns, name=f"lying_{table}", first=first, last=last)
            run(con, read_once_sql(table))
        if "profiles" in {table for table, _ in asked.values()}:
            told, _ = told_by_ledger(world, list(days_between(first, last)))
            put(con, "told_roles", arrow(told, ROLE_COLUMNS))
        for name, (_table, query) in asked.items():
            found[name] = {day: value for day, value in rows(con, query) if value is not None}
    return found


def read_once_sql(table: str) -> str:
    """SQL of a temp table with what series are made of: eight clocks read the files of seventy days once, not each."""
    lists = [column.name for column in BY_NAME[table].columns if column.type.endswith("[]")]
    kept = f"* exclude ({', '.join(lists)})" if lists else "*"
    part = ", edges is not null as is_binned" if table == "profiles" else ""
    of_whole, of_served = "where slice = 'all'", "where window_days = 1 and role = 'served'"
    where = {"quality": of_served, "kpi": of_served}.get(table, of_whole if table in OF_ALL else "")
    return f"create or replace temp table {quote(table)} as select {kept}{part} from {quote('lying_' + table)} {where}"


def _asked(world: World, name: str) -> tuple[str, str]:
    """The table that a series is read from, and the SQL of ``(day, value)``."""
    kind, _, what = name.partition(":")
    version = world.service.label.version
    readers: dict[str, tuple[str, Callable[[], str]]] = {
        "quality": ("quality", lambda: quality_series_sql("quality", what, version)),
        "kpi": ("kpi", lambda: quality_series_sql("kpi", what, version)),
        "objective": ("objectives", lambda: objective_series_sql(what)),
        OPERATIONS: ("operations", lambda: operations_series_sql(what)),
        "completeness": ("completeness", lambda: completeness_series_sql(what, version)),
        "loop_sync": ("loop_sync", lambda: lag_series_sql(what)),
        "freshness": ("freshness", lambda: freshness_series_sql(what)),
        "drift": ("drift", lambda: surprise_series_sql(what)),
        "verdict": ("verdicts", verdict_series_sql),
    }
    table, query = readers.get(kind, ("profiles", lambda: profile_series_sql(name)))
    return table, query()


def profile_series_sql(name: str) -> str:
    """SQL of ``(day, value)`` of one column: of the champion's features and score where it held all day.

    Reads ``profiles`` and ``told_roles``; of several subjects of a day the champion's, else the largest.
    """
    column, value = name, VALUES["mean"]
    if name == ROWS or name.endswith(" null share"):
        column, value = name.removesuffix(" null share"), VALUES["rows" if name == ROWS else "null share"]
    of_column = "is_binned" if column == ROWS else f"column_name = {literal(column)}"
    return f"""
        select day, arg_max({value}, (coalesce(subject in (feature_version, model_version), false), n))
        from profiles left join told_roles using (day)
        where slice = 'all' and {of_column} group by day order by day
    """


def quality_series_sql(table: str, what: str, label_version: str) -> str:
    """SQL of ``(prediction_day, value)`` of what was served, as known last; ``calibration`` is the ratio."""
    metric, _, part = what.partition(":")
    metric = "calibration_ratio" if metric == "calibration" else metric
    named = {"quality": "metric", "kpi": "kpi"}[table]
    return f"""
        select prediction_day, arg_max(value, day) from {quote(table)}
        where {named} = {literal(metric)} and slice = {literal(part or "all")} and window_days = 1
          and role = 'served' and label_version in ({literal(label_version)}, '') and value is not null
        group by prediction_day order by prediction_day
    """


def objective_series_sql(what: str) -> str:
    """SQL of ``(day, value)`` of a promised level."""
    return f"select day, value from objectives where objective = {literal(what)} order by day"


def operations_series_sql(what: str) -> str:
    """SQL of ``(day, value)`` of what was served: missing labels, failed answers, answers of the fallback, cost, or any
    number of the table; CPU seconds and memory of scoring, which has no served version, of all versions.
    """
    columns = {column.name for column in BY_NAME["operations"].columns if column.type in ("DOUBLE", "BIGINT")}
    if what in ("cpu_seconds", "peak_mib"):
        total = f"{'sum' if what == 'cpu_seconds' else 'max'}({what})"
        return f"select day, {total} from operations where slice = 'all' group by day order by day"
    value = OF_OPERATIONS.get(what, f"{what}::double" if what in columns else "n::double")
    return f"select day, {value} from operations where version = 'served' and slice = 'all' order by day"


def completeness_series_sql(what: str, label_version: str) -> str:
    """SQL of ``(day, value)``: the share of the labels of an outcome that is known a day after; ``<outcome>:<age>``."""
    outcome, _, age = what.partition(":")
    days = int(age) if age.isdecimal() else 1
    return f"""
        select day, value from completeness where label_version = {literal(label_version)}
          and outcome = {literal(outcome)} and age_days = {days} and coalesce(slice, 'all') = 'all' order by day
    """


def lag_series_sql(check: str) -> str:
    """SQL of ``(day, lag in days)`` of one clock of the loops."""
    return f'select day, lag_days from loop_sync where "check" = {literal(check)} order by day'


def freshness_series_sql(source: str) -> str:
    """SQL of ``(day, hours)``: how old the newest row of a source was at the end of a day."""
    return f"select day, max(age_hours) from freshness where source = {literal(source)} group by day order by day"


def surprise_series_sql(what: str) -> str:
    """SQL of ``(day, z)`` of a column: of one statistic, ``<column>:<statistic>``, or the largest of all."""
    column, _, statistic = what.partition(":")
    of_statistic = f"and statistic = {literal(statistic)}" if statistic else ""
    return f"""
        select day, max(surprise) from drift where column_name = {literal(column)} and slice = 'all'
          and baseline = 'trailing' {of_statistic} group by day order by day
    """


def verdict_series_sql() -> str:
    """SQL of ``(day, step)`` of the verdict, from 0, quiet, to 3, break glass."""
    steps = "['quiet', 'note', 'investigate', 'break glass']"
    return f"select day, (list_position({steps}, verdict) - 1)::double from verdicts order by day"
