"""Every table the loops exchange: grain, key, columns, and its one writer.

``docs/tables.md`` is generated from this file (``python -m mlops_assets.tables``). A column is *content* if a
rerun must reproduce it, *observed* if it belongs to one run (durations, run ids, wall clock). All tables are
Delta tables partitioned by ``day``; instants are UTC. TABLES stands in commit order, ``generations`` last.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: DuckDB type, meaning, and whether a rerun reproduces it (content) or not (observed)."""

    name: str
    type: str
    meaning: str
    content: bool = True


@dataclass(frozen=True)
class Table:
    """One table. ``is_open``: declared features stand as further columns beside the ones named here."""

    name: str
    loop: str
    grain: str
    key: tuple[str, ...]
    writer: str
    columns: tuple[Column, ...]
    is_open: bool = False
    is_shared: bool = False

    @property
    def content(self) -> tuple[str, ...]:
        """Names of the named content columns."""
        return tuple(column.name for column in self.columns if column.content)

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the columns that belong to one run."""
        return tuple(column.name for column in self.columns if not column.content)

    def create_sql(self, name: str | None = None) -> str:
        """SQL that creates an empty in-memory table of this shape."""
        columns = ", ".join(f'"{column.name}" {column.type}' for column in self.columns)
        return f'create or replace temp table "{name or self.name}" ({columns})'


def _columns(*rows: tuple[str, str, str] | tuple[str, str, str, bool]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


DAY = ("day", "DATE", "business day the row belongs to; the partition")

SOURCE_COLUMNS = _columns(
    ("day", "DATE", "arrival day A of the file"),
    ("generation", "INTEGER", "1 for the first delivery of the file, then counting"),
    ("source_key", "VARCHAR", "the declared key as one text"),
    ("withdrawn", "BOOLEAN", "true: this generation no longer has the row of this key"),
)
"""Columns that the landing zone adds in front of the declared columns of every source."""

TABLES: tuple[Table, ...] = (
    Table(
        "contracts",
        "feature",
        "one expectation on one delivered file",
        ("day", "source", "generation", "expectation"),
        "feature_loop/contracts.py",
        _columns(
            ("day", "DATE", "arrival day of the file"),
            ("source", "VARCHAR", "source name"),
            ("generation", "INTEGER", "which delivery of the file"),
            ("expectation", "VARCHAR", "what was promised, in words"),
            ("column_name", "VARCHAR", "the column it is about, if one"),
            ("severity", "VARCHAR", "critical or warning"),
            ("success", "BOOLEAN", "whether it held"),
            ("observed", "VARCHAR", "what was seen"),
            ("message", "VARCHAR", "source, day, column and the fix, if it failed"),
            ("outcome", "VARCHAR", "for the file: accepted, quarantined (rows left out), rejected, missing"),
        ),
        is_shared=True,
    ),
    Table(
        "quarantine",
        "feature",
        "one delivered row that was left out",
        ("day", "source", "generation", "source_key", "expectation"),
        "feature_loop/contracts.py",
        _columns(
            ("day", "DATE", "arrival day of the file"),
            ("source", "VARCHAR", "source name"),
            ("generation", "INTEGER", "which delivery of the file"),
            ("source_key", "VARCHAR", "the row's declared key as one text"),
            ("expectation", "VARCHAR", "the promise it broke"),
            ("payload", "VARCHAR", "the whole row as JSON"),
        ),
        is_shared=True,
    ),
    Table(
        "features",
        "feature",
        "one request, one feature version",
        ("request_id", "feature_version"),
        "feature_loop/point_in_time.py",
        _columns(
            DAY,
            ("request_id", "VARCHAR", "the request"),
            ("feature_version", "VARCHAR", "fingerprint of the definition"),
            ("predicted_at", "TIMESTAMP", "as-of instant: nothing available later was used"),
            ("context", "VARCHAR", "the slices that the request belongs to, as JSON"),
            ("filled_on", "DATE", "day on which a new version was filled backwards, else null", False),
        ),
        is_open=True,
    ),
    Table(
        "freshness",
        "feature",
        "one feature view on one day",
        ("day", "view"),
        "feature_loop/freshness.py",
        _columns(
            DAY,
            ("view", "VARCHAR", "feature view"),
            ("source", "VARCHAR", "the source it reads"),
            ("newest_available_at", "TIMESTAMP", "newest row of the source available by the end of the day"),
            ("age_hours", "DOUBLE", "end of day minus newest_available_at"),
            ("max_age_hours", "DOUBLE", "what the view promises, if it does"),
            ("stale_share", "DOUBLE", "share of the day's requests left without a value"),
            ("state", "VARCHAR", "fresh, stale, missing or not_expected"),
        ),
    ),
    Table(
        "predictions",
        "feedback",
        "one request scored by one model version",
        ("request_id", "model_version"),
        "feedback_loop/prediction_log.py",
        _columns(
            ("day", "DATE", "business day of logged_at"),
            ("request_id", "VARCHAR", "the request"),
            ("model_version", "VARCHAR", "<training day>-<tier>-<train key>, or prior"),
            ("role", "VARCHAR", "champion, fallback or prior at predicted_at"),
            ("served", "BOOLEAN", "true on exactly one row per request: the answer given"),
            ("score", "DOUBLE", "chance of the positive outcome, 9 decimals"),
            ("decision", "BOOLEAN", "score at or above the declared threshold; null without one, or as logged"),
            ("status", "VARCHAR", "ok, error, timeout, or fallback when the champion could not answer"),
            ("feature_version", "VARCHAR", "definition of the features it was scored on"),
            ("bucket", "INTEGER", "hash bucket of the request, 0..9999"),
            ("propensity", "DOUBLE", "chance with which this version was chosen to answer"),
            ("context", "VARCHAR", "the slices of the request as JSON"),
            ("payload", "VARCHAR", "hash of the logged features of an external log, else null"),
            ("predicted_at", "TIMESTAMP", "as-of instant of the request"),
            ("logged_at", "TIMESTAMP", "when we could first read the row; equal for batch scoring"),
            ("prediction_day", "DATE", "business day of predicted_at"),
            ("latency_ms", "DOUBLE", "scoring time per row of the batch, or as logged", False),
            ("cost", "DOUBLE", "declared cost of one prediction of the tier, or as logged; null: unknown", False),
        ),
    ),
    Table(
        "conflicts",
        "feedback",
        "one logged row that contradicts the first one of its key",
        ("request_id", "model_version", "logged_at", "source_key"),
        "feedback_loop/prediction_log.py",
        _columns(
            ("day", "DATE", "business day of logged_at"),
            ("request_id", "VARCHAR", "the request"),
            ("model_version", "VARCHAR", "the version that both rows say answered"),
            ("logged_at", "TIMESTAMP", "when we could first read the row"),
            ("source_key", "VARCHAR", "its key in the log"),
            ("differs", "VARCHAR", "columns that differ; served_at alone: an answer after it was logged"),
            ("payload", "VARCHAR", "what the row says, as JSON; the first one stands in predictions"),
        ),
    ),
    Table(
        "labels",
        "feedback",
        "one label event",
        ("request_id", "label_version", "known_at"),
        "feedback_loop/labels.py",
        _columns(
            ("day", "DATE", "business day of known_at"),
            ("request_id", "VARCHAR", "the request it is about"),
            ("label_version", "VARCHAR", "definition that read the outcome"),
            ("value", "DOUBLE", "1 or 0; null: the outcome was withdrawn"),
            ("kpi", "DOUBLE", "what the outcome is worth, if the definition says; attributed labels have none"),
            ("event_at", "TIMESTAMP", "when the outcome happened"),
            ("known_at", "TIMESTAMP", "when it could first be known"),
            ("source", "VARCHAR", "source and generation it came from"),
        ),
    ),
    Table(
        "outcomes",
        "feedback",
        "one prediction and what became of it, as of the last closed day",
        ("request_id", "model_version", "label_version"),
        "feedback_loop/outcomes.py",
        _columns(
            ("day", "DATE", "prediction day"),
            ("request_id", "VARCHAR", "the request"),
            ("model_version", "VARCHAR", "the version that scored it"),
            ("label_version", "VARCHAR", "the label definition"),
            ("role", "VARCHAR", "role of the version at predicted_at"),
            ("served", "BOOLEAN", "whether this was the answer given"),
            ("score", "DOUBLE", "the stored score"),
            ("value", "DOUBLE", "the newest label known, null if none counts"),
            ("known_at", "TIMESTAMP", "when that label became known"),
            ("label_events", "INTEGER", "label events seen so far"),
            ("state", "VARCHAR", "open, provisional, final or restated"),
        ),
    ),
    Table(
        "training_set",
        "model",
        "one labelled request in one training snapshot",
        ("fingerprint", "request_id"),
        "model_loop/training_set.py",
        _columns(
            ("day", "DATE", "day of the decision to train"),
            ("fingerprint", "VARCHAR", "hash of rows, feature version, label version"),
            ("request_id", "VARCHAR", "the request"),
            ("prediction_day", "DATE", "its business day"),
            ("value", "DOUBLE", "the label known at the training instant"),
            ("known_at", "TIMESTAMP", "when that label became known"),
            ("part", "VARCHAR", "fit, or judged: the newest mature days, kept from the candidate"),
        ),
    ),
    Table(
        "evaluation",
        "model",
        "one metric of one candidate beside its rival on the same rows",
        ("day", "version", "rival", "slice", "metric"),
        "model_loop/evaluation.py",
        _columns(
            ("day", "DATE", "day of the decision to train"),
            ("version", "VARCHAR", "the candidate"),
            ("rival", "VARCHAR", "champion, fallback or prior it was compared with"),
            ("slice", "VARCHAR", "all, column=value, or feature=name for an importance"),
            (
                "metric",
                "VARCHAR",
                "brier, log_loss, auc, calibration_ratio; importance: loss that shuffling the feature adds",
            ),
            ("value", "DOUBLE", "the candidate's metric"),
            ("rival_value", "DOUBLE", "the rival's metric on the same rows"),
            ("difference", "DOUBLE", "mean of daily differences, candidate minus rival"),
            ("low", "DOUBLE", "lower 95 % bound of the difference; the day is the unit"),
            ("high", "DOUBLE", "upper 95 % bound"),
            ("days", "INTEGER", "judged days"),
            ("n", "BIGINT", "judged rows"),
        ),
    ),
    Table(
        "completeness",
        "feedback",
        "the labels of one outcome that were known at one age, and the share of all of them that this is",
        ("day", "label_version", "outcome", "age_days"),
        "feedback_loop/maturity.py",
        _columns(
            ("day", "DATE", "as known at the end of this day"),
            ("label_version", "VARCHAR", "definition of the label"),
            ("outcome", "VARCHAR", "positive or negative"),
            ("age_days", "INTEGER", "of the prediction day: day - age_days; 0 is its own midnight"),
            ("weekday", "INTEGER", "whose curve: 1 (Monday) to 7, or 0: of all days"),
            ("value", "DOUBLE", "share of the labels of this outcome that is known at this age; null with a reason"),
            ("low", "DOUBLE", "lower 95 % bound of the share as an average over days"),
            ("high", "DOUBLE", "upper 95 % bound"),
            ("n", "BIGINT", "mature labels that the curve rests on"),
            ("days", "INTEGER", "mature prediction days that the curve rests on"),
            ("arrived", "BIGINT", "labels of this outcome of the prediction day that were known"),
            ("predicted", "BIGINT", "requests of the prediction day"),
            ("variance", "DOUBLE", "of the logarithm of the share on one new day"),
            ("covariance", "DOUBLE", "of the logarithms of the shares of both outcomes"),
            ("reason", "VARCHAR", "why there is no share, or: declared"),
        ),
    ),
    Table(
        "profiles",
        "monitoring",
        "one column of one subject on one day",
        ("day", "subject", "slice", "column_name"),
        "monitoring_loop/profiles.py",
        _columns(
            DAY,
            ("subject", "VARCHAR", "feature_version for inputs, model_version for its score, label_version for labels"),
            ("slice", "VARCHAR", "all, or column=value"),
            ("column_name", "VARCHAR", "feature name, score, or label"),
            ("n", "BIGINT", "rows"),
            ("nulls", "BIGINT", "rows without a value"),
            ("total", "DOUBLE", "sum of values"),
            ("squares", "DOUBLE", "sum of squared values"),
            ("low", "DOUBLE", "smallest value"),
            ("high", "DOUBLE", "largest value"),
            ("distinct_values", "BIGINT", "how many different values, about (HyperLogLog)"),
            ("is_constant", "BOOLEAN", "there are values, and all are the same"),
            ("bins", "VARCHAR", "version of the bins; histograms of one version add up; null while they are learned"),
            ("counts", "BIGINT[]", "values per bin: up to each edge, the open end last; or per text, all others last"),
            ("out_of_range", "BIGINT", "numbers in the two open ends"),
            ("new_category", "BIGINT", "texts that were unknown when the bins were frozen"),
            ("edges", "DOUBLE[]", "upper bounds of the bins, each included"),
            ("texts", "VARCHAR[]", "texts known when the bins were frozen; the first 30 have a bin each"),
        ),
    ),
    Table(
        "quality",
        "monitoring",
        "one metric of one version over one window, as known at the end of day",
        ("day", "prediction_day", "window_days", "version", "role", "slice", "metric", "label_version"),
        "monitoring_loop/quality.py",
        _columns(
            ("day", "DATE", "as known at the end of this day"),
            ("prediction_day", "DATE", "last prediction day of the window"),
            ("window_days", "INTEGER", "1, 7, 14 or 28 prediction days"),
            ("version", "VARCHAR", "model_version, or served: whatever answered"),
            ("role", "VARCHAR", "champion, fallback, prior, or served"),
            ("slice", "VARCHAR", "all, or column=value"),
            ("metric", "VARCHAR", "brier, log_loss, auc, calibration_ratio, positive_share"),
            ("label_version", "VARCHAR", "metrics never mix label versions"),
            ("value", "DOUBLE", "the metric, corrected for labels that have not come; null with a reason"),
            ("raw_value", "DOUBLE", "the metric over what is labelled, as if nothing else would come"),
            ("low", "DOUBLE", "lower 95 % bound; the day is the unit for windows longer than a day"),
            ("high", "DOUBLE", "upper 95 % bound"),
            ("n", "BIGINT", "predictions in the window"),
            ("n_labelled", "BIGINT", "of which labelled by then"),
            ("completeness", "DOUBLE", "n_labelled / n; if only positives arrive: share of them that is known"),
            ("state", "VARCHAR", "open, provisional, final, restated, or not_measured"),
            ("reason", "VARCHAR", "why a value is missing"),
        ),
    ),
    Table(
        "kpi",
        "monitoring",
        "the declared value of the answers of one version over one mature window, as known at the end of day",
        ("day", "prediction_day", "window_days", "version", "role", "slice", "kpi", "label_version"),
        "monitoring_loop/kpi.py",
        _columns(
            ("day", "DATE", "as known at the end of this day"),
            ("prediction_day", "DATE", "last prediction day of the window"),
            ("window_days", "INTEGER", "1, 7, 14 or 28 prediction days"),
            ("version", "VARCHAR", "model_version, or served: whatever answered"),
            ("role", "VARCHAR", "champion, fallback, prior, or served"),
            ("slice", "VARCHAR", "all"),
            ("kpi", "VARCHAR", "its declared name; the unit stands in the declaration"),
            ("label_version", "VARCHAR", "the outcomes it was valued with"),
            ("value", "DOUBLE", "mean per request whose outcome is known"),
            ("low", "DOUBLE", "lower 95 % bound; the day is the unit for windows longer than a day"),
            ("high", "DOUBLE", "upper 95 % bound"),
            ("total", "DOUBLE", "sum over those requests"),
            ("alarms", "BIGINT", "how many of them were decided positively"),
            ("n", "BIGINT", "predictions in the window"),
            ("n_labelled", "BIGINT", "of which with a known outcome and a value"),
            ("completeness", "DOUBLE", "labelled share, as in table quality"),
            ("state", "VARCHAR", "final, restated, or not_measured"),
            ("reason", "VARCHAR", "why a value is missing"),
        ),
    ),
    Table(
        "rules",
        "monitoring",
        "one rule over quality, evaluated at the end of one day",
        ("day", "rule", "leads_to"),
        "monitoring_loop/rules.py",
        _columns(
            ("day", "DATE", "as known at the end of this day"),
            ("rule", "VARCHAR", "the sentence that was declared, or the name of a monitor"),
            ("leads_to", "VARCHAR", "incident or retraining"),
            ("prediction_day", "DATE", "last prediction day of the newest window"),
            ("window_days", "INTEGER", "prediction days in a window"),
            ("role", "VARCHAR", "whose quality: served, champion"),
            ("slice", "VARCHAR", "all, or column=value"),
            ("metric", "VARCHAR", "a metric of table quality or kpi"),
            ("value", "DOUBLE", "the newest window's; calibration: observed share of positives"),
            ("compared", "DOUBLE", "what it stands beside; calibration: predicted share of positives"),
            ("change", "DOUBLE", "distance in the unit of the limit; calibration: z"),
            ("scale", "DOUBLE", "calibration: root mean square of the champion's own past gaps"),
            ("days_broken", "INTEGER", "days beyond the limit"),
            ("days_judged", "INTEGER", "days with a value and something to compare it with"),
            ("of_days", "INTEGER", "days the rule looks at; a missing one is never a good one"),
            ("n_labelled", "BIGINT", "labels behind value"),
            ("completeness", "DOUBLE", "share of the newest window that is labelled"),
            ("known_as", "VARCHAR", "state of the newest window: final, restated, provisional or not_measured"),
            ("state", "VARCHAR", "ok, broken, unknown or learning"),
            ("tier", "VARCHAR", "stable, expected, moderate, severe or unknown"),
            ("reason", "VARCHAR", "a sentence"),
        ),
    ),
    Table(
        "operations",
        "monitoring",
        "one version on one slice of one day",
        ("day", "version", "slice"),
        "monitoring_loop/operations.py",
        _columns(
            ("day", "DATE", "business day of logged_at; for labels the day on which the label window ended"),
            ("version", "VARCHAR", "model_version, or served: whatever answered"),
            ("slice", "VARCHAR", "all, or name=value"),
            ("n", "BIGINT", "predictions: the throughput of the day"),
            ("errors", "BIGINT", "of which failed"),
            ("timeouts", "BIGINT", "of which came too late"),
            ("fallbacks", "BIGINT", "of which the fallback answered because the champion could not"),
            ("error_share", "DOUBLE", "errors and timeouts over n"),
            ("fallback_share", "DOUBLE", "fallbacks over n"),
            ("peak_per_hour", "BIGINT", "predictions in the busiest hour"),
            ("n_costed", "BIGINT", "predictions whose cost is known"),
            ("cost", "DOUBLE", "their cost, in the currency of the service"),
            ("cost_squares", "DOUBLE", "sum of their squared costs"),
            ("cost_per_1000", "DOUBLE", "1,000 times cost over n_costed"),
            ("billed", "DOUBLE", "share of the bills that arrived on this day: predictions of the day they are about"),
            ("billed_n", "BIGINT", "those predictions"),
            ("billed_per_1000", "DOUBLE", "1,000 times billed over billed_n"),
            ("matured", "BIGINT", "served requests whose label window ended on this day; version served only"),
            ("unlabelled", "BIGINT", "of which no label was known by then"),
            ("slow_labels", "BIGINT", "of which the label came later than promised"),
            ("sum_ms", "DOUBLE", "sum of latencies: scoring time in milliseconds", False),
            ("squares_ms", "DOUBLE", "sum of squared latencies", False),
            ("p50_ms", "DOUBLE", "median latency, off by at most 1 %", False),
            ("p95_ms", "DOUBLE", "95th percentile, off by at most 1 %", False),
            ("p99_ms", "DOUBLE", "99th percentile, off by at most 1 %", False),
            ("latency_bins", "INTEGER[]", "logarithmic bins with latencies in them: rows add up bin by bin", False),
            ("latency_counts", "BIGINT[]", "latencies per bin", False),
        ),
    ),
    Table(
        "objectives",
        "monitoring",
        "one promised level on one day",
        ("day", "objective"),
        "monitoring_loop/objectives.py",
        _columns(
            DAY,
            ("objective", "VARCHAR", "latency, errors, freshness, label_delay, quality or cost_per_1000"),
            ("n", "BIGINT", "events of the day"),
            ("bad", "BIGINT", "of which were not as promised"),
            ("value", "DOUBLE", "the level that people read: p95 in ms, a share, hours, a metric, money", False),
            ("limit", "DOUBLE", "what was promised, in the same unit, if it has one"),
            ("burn", "DOUBLE", "how many times faster than allowed the day spent the error budget"),
            ("budget_spent", "DOUBLE", "share of the window's error budget that is spent; above 1: overspent"),
            ("broken_days", "INTEGER", "broken days among the last ones that count"),
            ("crosses_on", "DATE", "day on which the limit is crossed at the current growth, if it grows"),
            ("crosses_low", "DATE", "earliest such day within the 95 % bounds of the growth"),
            ("crosses_high", "DATE", "latest such day; null: perhaps never"),
            ("slice", "VARCHAR", "slice that explains most of a broken promise, if one does"),
            ("tier", "VARCHAR", "stable or moderate"),
            ("reason", "VARCHAR", "a sentence"),
        ),
    ),
    Table(
        "drift",
        "monitoring",
        "one statistic of one column on one day beside its baseline",
        ("day", "subject", "slice", "column_name", "statistic", "baseline"),
        "monitoring_loop/drift.py",
        _columns(
            DAY,
            ("subject", "VARCHAR", "features, score, or a source: what the series is about"),
            ("slice", "VARCHAR", "all, or column=value"),
            ("column_name", "VARCHAR", "feature name, score, or rows"),
            (
                "statistic",
                "VARCHAR",
                "mean, spread, distance, distance_7d, volume: shifts; null_share, constant, "
                "out_of_range, new_category: integrity; rule_<name>: a declared plain rule",
            ),
            ("baseline", "VARCHAR", "trailing: the days before; training: what the champion learned from"),
            ("value", "DOUBLE", "the day's statistic"),
            ("expected", "DOUBLE", "what the baseline predicts for this day"),
            ("scale", "DOUBLE", "standard deviation of past one-step residuals, on the side of the shift"),
            ("surprise", "DOUBLE", "z: residual over scale"),
            ("size", "DOUBLE", "how large, in the unit of its gate"),
            ("event", "VARCHAR", "known event in whose scope it lies, if one"),
            ("tier", "VARCHAR", "stable, expected, moderate, severe or unknown"),
            ("reason", "VARCHAR", "a sentence"),
        ),
    ),
    Table(
        "loop_sync",
        "monitoring",
        "one clock or one comparison of the four loops on one day",
        ("day", "check"),
        "monitoring_loop/loop_sync.py",
        _columns(
            DAY,
            (
                "check",
                "VARCHAR",
                "data:<source>, training, label, monitoring; label_semantics, serving_features, declared_features, "
                "training_failed",
            ),
            ("clock", "VARCHAR", "the day or instant it stands at"),
            ("fingerprint", "VARCHAR", "of what it speaks: generations, snapshot, label definition, feature version"),
            ("lag_days", "DOUBLE", "how far behind the day it is"),
            ("limit_days", "DOUBLE", "how far it may be, if that was promised"),
            ("state", "VARCHAR", "agrees, lags, differs, failed, or none: nothing to compare"),
            ("tier", "VARCHAR", "stable or moderate"),
            ("reason", "VARCHAR", "a sentence"),
        ),
    ),
    Table(
        "verdicts",
        "monitoring",
        "one day",
        ("day",),
        "monitoring_loop/verdict.py",
        _columns(
            DAY,
            ("verdict", "VARCHAR", "quiet, note, investigate or break glass"),
            ("tier", "VARCHAR", "the highest tier of the day"),
            ("reason", "VARCHAR", "why, in words"),
            ("decisions", "VARCHAR", "kinds of the decisions taken, comma separated"),
            ("state", "VARCHAR", "computed or blocked"),
        ),
    ),
    Table(
        "generations",
        "all",
        "one day of one table as last written",
        ("table_name", "day"),
        "day_loop.py",
        _columns(
            DAY,
            ("table_name", "VARCHAR", "which table"),
            ("rows", "BIGINT", "rows of that day"),
            ("fingerprint", "VARCHAR", "hash of the content columns of that day"),
            ("inputs", "VARCHAR", "fingerprint of the file generations known to the day"),
            ("feature_versions", "VARCHAR", "feature versions computed, comma separated"),
            ("state", "VARCHAR", "computed, empty or blocked"),
            ("reason", "VARCHAR", "why empty or blocked"),
            ("epoch", "INTEGER", "epoch that wrote it", False),
        ),
    ),
)

BY_NAME = {table.name: table for table in TABLES}
FACTS = ("predictions", "conflicts", "labels")
"""Written at the closing of their day and never again."""

TIERS = ("stable", "expected", "moderate", "severe", "unknown")


def tables_page(tables: Iterable[Table] = TABLES) -> str:
    """The Markdown page ``docs/tables.md``."""
    parts = ["# Tables\n\nGenerated from `mlops_assets/tables.py`; do not edit.\n"]
    for table in tables:
        parts.append(
            f"\n## `{table.name}`\n\nOne row is {table.grain}. Key: {', '.join(table.key)}. "
            f"Loop: {table.loop}. Written by `{table.writer}`."
            + (" Declared features stand beside the columns named here." if table.is_open else "")
            + (" Shared by all services." if table.is_shared else "")
            + "\n\n| column | type | meaning | |\n| --- | --- | --- | --- |\n"
        )
        parts += [
            f"| `{c.name}` | {c.type} | {c.meaning} | {'' if c.content else 'observed'} |\n" for c in table.columns
        ]
    return "".join(parts)


if __name__ == "__main__":
    print(tables_page(), end="")
