"""A prediction log: what a system that already runs elsewhere writes down about its answers."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field, model_validator

from mlops_assets.service.features import SPINE_COLUMNS, Request, RequestView
from mlops_assets.service.policy import Days, Identifier, Policy
from mlops_assets.service.sources import Source

ROLES = ("champion", "canary", "fallback", "shadow", "prior")
"""Who may have answered."""
ANSWERED = ("ok", "fallback")
"""Statuses of a row that is an answer."""
STATUSES = (*ANSWERED, "error", "timeout")
LOGGED_SCORE = "logged_score"
"""The feature that stands for the log where no feature of it is declared: its rows are counted on it."""


class PredictionLog(Policy):
    """How the rows of a source become predictions; every field is an SQL expression over one row of it.

    ``source`` is an ordinary source (Parquet, CSV or JSON lines in the landing zone, with a contract); its
    ``available_at`` is when we could first read a row, ``served_at`` when the answer was given. One row is one
    answer of one model version: key (request_id, model_version). Within ``repeats_within_days`` an identical row is
    dropped and counted, one that says something else under the same key is a conflict: the first one counts.

    ``role``: champion, canary, fallback, prior or shadow (shadow answers nobody). ``status``: ok, error, timeout or
    fallback; a row that is not ok may lack a score. A row that says anything else there, or nothing, is no answer: it
    is kept apart like a conflict. ``propensity``: the chance with which the version was chosen to answer, where the
    log says it; else 1 for the answer that was served. ``features`` and ``context`` name what else is kept: features
    are profiled and watched, context columns become slices. ``class_scores``: class -> its chance, where the answer
    is one class out of several; ``score`` is then the largest of them, and a row without all of them has none.
    Nothing else of a row is kept, so that a user id is only ever stored if it is named here. ``log_lag_days``: how
    many days after the answers a file usually comes.
    """

    source: Identifier
    request_id: str
    model_version: str
    score: str
    served_at: str = "event_at"
    role: str = "'champion'"
    status: str = "'ok'"
    decision: str | None = None
    propensity: str | None = None
    latency_ms: str | None = None
    cost: str | None = None
    features: dict[Identifier, str] = {}
    categorical: tuple[str, ...] = ()
    class_scores: dict[str, str] = {}
    context: dict[Identifier, str] = {}
    log_lag_days: Days = 0
    repeats_within_days: int = Field(default=30, ge=15, le=40)

    @property
    def repeats_within(self) -> timedelta:
        """How long after a row another one of its key is a repeat or a conflict; longer than a block of days."""
        return timedelta(days=self.repeats_within_days)

    @property
    def expressions(self) -> dict[str, str]:
        """Field -> expression, for the check of names when the declaration loads."""
        fields = ("request_id", "model_version", "score", "served_at", "role", "status")
        optional = ("decision", "propensity", "latency_ms", "cost")
        named = {field: getattr(self, field) for field in (*fields, *optional) if getattr(self, field) is not None}
        parts: Mapping[str, Mapping[str, str]] = {
            "features": self.features, "context": self.context, "class_scores": self.class_scores,
        }  # fmt: skip
        return named | {f"{part} > '{name}'": text for part, found in parts.items() for name, text in found.items()}

    def request(self, source: Source) -> Request:
        """What stands for the request where nothing else is known of it: a row of the log, when we could read it."""
        return Request(
            source=source.name,
            request_id=self.request_id,
            predicted_at=source.available_at,
            columns=tuple(column for column in source.columns if column not in SPINE_COLUMNS),
        )

    def view(self) -> RequestView:
        """The logged features as a view over the row itself."""
        features = dict(self.features) or {LOGGED_SCORE: self.score}
        return RequestView(name="logged", features=features, categorical=self.categorical)

    @model_validator(mode="before")
    @classmethod
    def _score_is_the_largest_chance(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given.get("class_scores") or "score" in given:
            return given
        chances = [f"({text})" for text in given["class_scores"].values()]
        score = f"case when {' + '.join(chances)} is not null then greatest({', '.join(chances)}) end"
        return {**given, "score": score}

    @model_validator(mode="after")
    def _categorical_are_features(self) -> "PredictionLog":
        unknown = [name for name in self.categorical if name not in self.features]
        if unknown:
            raise ValueError(f"categorical {', '.join(unknown)}: no such feature; declared: {', '.join(self.features)}")
        return self
