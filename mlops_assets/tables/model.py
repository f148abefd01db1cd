"""Tables of the model loop: what a candidate learned from and how it compared."""

from mlops_assets.tables.table import Table, columns

TRAINING_SET = Table(
    "training_set",
    "model",
    "one labelled request in one training snapshot",
    ("fingerprint", "request_id"),
    "model_loop/training_set.py",
    columns(
        ("day", "DATE", "day of the decision to train"),
        ("fingerprint", "VARCHAR", "hash of rows, feature version, label version"),
        ("request_id", "VARCHAR", "the request"),
        ("prediction_day", "DATE", "its business day"),
        ("value", "DOUBLE", "the label known at the training instant"),
        ("known_at", "TIMESTAMP", "when that label became known"),
        ("part", "VARCHAR", "fit, or judged: the newest mature days, kept from the candidate"),
    ),
)

EVALUATION = Table(
    "evaluation",
    "model",
    "one metric of one candidate beside its rival on the same rows",
    ("day", "version", "rival", "slice", "metric"),
    "model_loop/evaluation.py",
    columns(
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
)
