"""Tables of the feedback loop: what was predicted, what happened, and how much of it is known."""

from mlops_assets.tables.table import Table, columns

PREDICTIONS = Table(
    "predictions",
    "feedback",
    "one request scored by one model version",
    ("request_id", "model_version"),
    "feedback_loop/prediction_log.py",
    columns(
        ("day", "DATE", "business day of logged_at"),
        ("request_id", "VARCHAR", "the request"),
        ("model_version", "VARCHAR", "<training day>-<tier>-<train key>, or prior"),
        ("role", "VARCHAR", "champion, fallback or prior at predicted_at"),
        ("served", "BOOLEAN", "true on exactly one row per request: the answer given"),
        ("score", "DOUBLE", "chance of the positive outcome, the number, or what ranked the row; 9 decimals"),
        ("class_scores", "DOUBLE[]", "chance of each class, in the order of label.classes; null for other tasks"),
        ("decision", "BOOLEAN", "score at or above the declared threshold; null without one, or as logged"),
        ("status", "VARCHAR", "ok, error, timeout, or fallback when the champion could not answer"),
        ("feature_version", "VARCHAR", "definition of the features it was scored on"),
        ("bucket", "INTEGER", "hash bucket of the request, 0..9999"),
        (
            "propensity",
            "DOUBLE",
            "chance with which this version was chosen to answer; of a log 1 if served, unless it says it",
        ),
        ("context", "VARCHAR", "the slices of the request as JSON"),
        ("payload", "VARCHAR", "hash of the logged features of an external log, else null"),
        ("predicted_at", "TIMESTAMP", "as-of instant of the request"),
        ("logged_at", "TIMESTAMP", "when we could first read the row; equal for batch scoring"),
        ("prediction_day", "DATE", "business day of predicted_at"),
        ("latency_ms", "DOUBLE", "scoring time per row of the batch, or as logged", False),
        ("cost", "DOUBLE", "declared cost of one prediction of the tier, or as logged; null: unknown", False),
    ),
)

CONFLICTS = Table(
    "conflicts",
    "feedback",
    "one logged row that contradicts the first one of its key, or is no answer",
    ("request_id", "model_version", "logged_at", "source_key"),
    "feedback_loop/prediction_log.py",
    columns(
        ("day", "DATE", "business day of logged_at"),
        ("request_id", "VARCHAR", "the request"),
        ("model_version", "VARCHAR", "the version that both rows say answered"),
        ("logged_at", "TIMESTAMP", "when we could first read the row"),
        ("source_key", "VARCHAR", "its key in the log"),
        ("differs", "VARCHAR", "columns that differ from the first row, or the one for which it is no answer"),
        ("is_unfit", "BOOLEAN", "no answer: no key, an unknown role or status, or given after it was logged"),
        ("payload", "VARCHAR", "what the row says, as JSON; the first one stands in predictions"),
    ),
)

LABELS = Table(
    "labels",
    "feedback",
    "one label event",
    ("request_id", "label_version", "known_at"),
    "feedback_loop/labels.py",
    columns(
        ("day", "DATE", "business day of known_at"),
        ("request_id", "VARCHAR", "the request it is about"),
        ("label_version", "VARCHAR", "definition that read the outcome"),
        ("value", "DOUBLE", "1 or 0, a number, or the place of a class from 0; null: the outcome was withdrawn"),
        ("kpi", "DOUBLE", "what the outcome is worth, if the definition says"),
        ("event_at", "TIMESTAMP", "when the outcome happened"),
        ("known_at", "TIMESTAMP", "when it could first be known"),
        ("source", "VARCHAR", "source and generation it came from"),
    ),
)

OUTCOMES = Table(
    "outcomes",
    "feedback",
    "one prediction and what became of it, as of the last closed day",
    ("request_id", "model_version", "label_version"),
    "feedback_loop/outcomes.py",
    columns(
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
)

COMPLETENESS = Table(
    "completeness",
    "feedback",
    "the labels of one outcome that were known at one age, and the share of all of them that this is",
    ("day", "label_version", "outcome", "slice", "age_days"),
    "feedback_loop/maturity.py",
    columns(
        ("day", "DATE", "as known at the end of this day"),
        ("label_version", "VARCHAR", "definition of the label"),
        ("outcome", "VARCHAR", "positive (above label.splits_at, or every label) or negative"),
        ("slice", "VARCHAR", "all, or column=value; null on days of older versions of this package: all"),
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
        ("reason", "VARCHAR", "why there is no share; or whose it is: declared, or of all requests"),
    ),
)
