"""Tables of the feature loop: what was delivered, what was computed from it, how fresh it was."""

from mlops_assets.tables.table import DAY, Table, columns

CONTRACTS = Table(
    "contracts",
    "feature",
    "one expectation on one delivered file",
    ("day", "source", "generation", "expectation"),
    "feature_loop/contracts.py",
    columns(
        ("day", "DATE", "arrival day of the file"),
        ("source", "VARCHAR", "source name"),
        ("generation", "INTEGER", "which delivery of the file"),
        ("expectation", "VARCHAR", "what was promised, in words"),
        ("column_name", "VARCHAR", "the column it is about, if one"),
        ("severity", "VARCHAR", "critical or warning"),
        ("success", "BOOLEAN", "whether it held"),
        ("observed", "VARCHAR", "what was seen"),
        ("message", "VARCHAR", "source, day, column and the fix, if it failed"),
        (
            "outcome",
            "VARCHAR",
            "for the file: accepted, quarantined (rows left out), rejected, missing, conflicting (a log, with itself)",
        ),
    ),
    is_shared=True,
)

QUARANTINE = Table(
    "quarantine",
    "feature",
    "one delivered row that was left out",
    ("day", "source", "generation", "source_key", "expectation"),
    "feature_loop/contracts.py",
    columns(
        ("day", "DATE", "arrival day of the file"),
        ("source", "VARCHAR", "source name"),
        ("generation", "INTEGER", "which delivery of the file"),
        ("source_key", "VARCHAR", "the row's declared key as one text"),
        ("expectation", "VARCHAR", "the promise it broke"),
        ("payload", "VARCHAR", "the whole row as JSON"),
    ),
    is_shared=True,
)

FEATURES = Table(
    "features",
    "feature",
    "one request, one feature version",
    ("request_id", "feature_version"),
    "feature_loop/point_in_time.py",
    columns(
        DAY,
        ("request_id", "VARCHAR", "the request"),
        ("feature_version", "VARCHAR", "fingerprint of the definition"),
        ("predicted_at", "TIMESTAMP", "as-of instant: nothing available later was used"),
        ("context", "VARCHAR", "the slices that the request belongs to, as JSON"),
        ("filled_on", "DATE", "day on which a new version was filled backwards, else null", False),
    ),
    is_open=True,
)

FRESHNESS = Table(
    "freshness",
    "feature",
    "one feature view on one day",
    ("day", "view"),
    "feature_loop/freshness.py",
    columns(
        DAY,
        ("view", "VARCHAR", "feature view"),
        ("source", "VARCHAR", "the source it reads"),
        ("newest_available_at", "TIMESTAMP", "newest row of the source available by the end of the day"),
        ("age_hours", "DOUBLE", "end of day minus newest_available_at"),
        ("max_age_hours", "DOUBLE", "what the view promises, if it does"),
        ("stale_share", "DOUBLE", "share of the day's requests left without a value"),
        ("state", "VARCHAR", "fresh, stale, missing or not_expected"),
    ),
)
