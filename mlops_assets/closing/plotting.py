"""The series behind an incident, as charts with everything that changed behind them as marks."""

from collections.abc import Callable
from datetime import date, timedelta

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import literal, open_engine, put, rows
from mlops_assets.closing.roles import ROLE_COLUMNS, told_by_ledger
from mlops_assets.closing.world import World, arrow
from mlops_assets.monitoring_loop.chart import Mark, change_in_words, chart
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.monitoring_loop.operations import OPERATIONS
from mlops_assets.monitoring_loop.shifts import ROWS
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
    marks = [
        Mark(row["day"], change_in_words(row))
        for row in world.ledger.effective("changes", world.name)
        if first <= row["day"] <= last and (row["before"] or row["day"] > world.service.first_day)
    ]
    return chart(read_series(world, name, first, last), marks, title=name, first=first, last=last, opened_on=opened_on)


def chart_up_to(world: World, name: str, last: date) -> str:
    """One series over the ten weeks that end on a closed day."""
    return chart_of(world, name, max(last - timedelta(days=MOST_DAYS - 1), world.service.first_day), last)


def read_series(world: World, name: str, first: date, last: date) -> dict[date, float]:
    """Day -> value of a series: ``quality:<metric>``, ``objective:<name>``, ``operations:<what>``, or a column."""
    kind, _, what = name.partition(":")
    readers: dict[str, tuple[str, Callable[[], str]]] = {
        "quality": ("quality", lambda: quality_series_sql(what, world.service.label.version)),
        "objective": ("objectives", lambda: objective_series_sql(what)),
        OPERATIONS: ("operations", lambda: operations_series_sql(what)),
    }
    table, query = readers.get(kind, ("profiles", lambda: profile_series_sql(name)))
    with open_engine() as con:
        world.lake.view(con, table, BY_NAME[table].columns, first=first, last=last)
        told, _ = told_by_ledger(world, list(days_between(first, last)))
        put(con, "told_roles", arrow(told, ROLE_COLUMNS))
        return {day: value for day, value in rows(con, query()) if value is not None}


def profile_series_sql(name: str) -> str:
    """SQL of ``(day, value)`` of one column: of the champion's features and score where it held all day.

    Reads ``profiles`` and ``told_roles``; of several subjects of a day the champion's, else the largest.
    """
    column, value = name, VALUES["mean"]
    if name == ROWS or name.endswith(" null share"):
        column, value = name.removesuffix(" null share"), VALUES["rows" if name == ROWS else "null share"]
    of_column = "edges is not null" if column == ROWS else f"column_name = {literal(column)}"
    return f"""
        select day, arg_max({value}, (coalesce(subject in (feature_version, model_version), false), n))
        from profiles left join told_roles using (day)
        where slice = 'all' and {of_column} group by day order by day
    """


def quality_series_sql(what: str, label_version: str) -> str:
    """SQL of ``(prediction_day, value)`` of what was served, as known last; ``calibration`` is the ratio."""
    metric, _, part = what.partition(":")
    metric = "calibration_ratio" if metric == "calibration" else metric
    return f"""
        select prediction_day, arg_max(value, day) from quality
        where metric = {literal(metric)} and slice = {literal(part or "all")} and window_days = 1
          and role = 'served' and label_version = {literal(label_version)} and value is not null
        group by prediction_day order by prediction_day
    """


def objective_series_sql(what: str) -> str:
    """SQL of ``(day, value)`` of a promised level."""
    return f"select day, value from objectives where objective = {literal(what)} order by day"


def operations_series_sql(what: str) -> str:
    """SQL of ``(day, value)`` of what was served: missing labels, failed answers, answers of the fallback, cost."""
    value = OF_OPERATIONS.get(what, "n::double")
    return f"select day, {value} from operations where version = 'served' and slice = 'all' order by day"
