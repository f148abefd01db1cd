"""Tables of the ledger: what an event is, and what makes two of them the same one.

Every machine event has ``service``, ``epoch`` and ``day``; ``docs/time-and-facts.md`` says what they mean.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

METADATA = sa.MetaData()


def _table(name: str, key: Sequence[str], **columns: Any) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        *(sa.Column(column, kind, primary_key=column in key) for column, kind in columns.items()),
    )


_EVENT: dict[str, Any] = {"service": sa.String, "epoch": sa.Integer, "day": sa.Date}
_INCIDENT: dict[str, Any] = {"incident_id": sa.String, "event": sa.String, "tier": sa.String, "text": sa.String}
_MODEL: dict[str, Any] = {
    "decision_id": sa.String, "role": sa.String, "model_version": sa.String, "feature_version": sa.String,
    "train_key": sa.String, "fingerprint": sa.String, "model_sha256": sa.String, "mlflow_version": sa.String,
}  # fmt: skip
"""A stored version in the role that it was trained for."""

EVENTS: dict[str, sa.Table] = {
    table.name: table
    for table in (
        _table(
            "epochs",
            ("service", "epoch"),
            service=sa.String,
            epoch=sa.Integer,
            from_day=sa.Date,
            until_day=sa.Date,
            by=sa.String,
            versions=sa.JSON,
            opened_at=sa.DateTime,
        ),
        _table(
            "closings",
            ("service", "epoch", "day"),
            **_EVENT,
            state=sa.String,
            reason=sa.String,
            inputs=sa.String,
            versions=sa.JSON,
            closed_at=sa.DateTime,
        ),
        _table(
            "known_generations",
            ("service", "epoch", "source", "arrival_day", "generation"),
            **_EVENT,
            source=sa.String,
            arrival_day=sa.Date,
            generation=sa.Integer,
            fingerprint=sa.String,
            known_at=sa.DateTime,
        ),
        _table(
            "decisions",
            ("service", "decision_id"),
            **_EVENT,
            decision_id=sa.String,
            kind=sa.String,
            subject=sa.String,
            because=sa.String,
            evidence=sa.JSON,
        ),
        _table(
            "actions",
            ("service", "decision_id", "attempt", "state"),
            **_EVENT,
            decision_id=sa.String,
            attempt=sa.Integer,
            state=sa.String,
            by=sa.String,
            detail=sa.String,
            acted_at=sa.DateTime,
            recorded_at=sa.DateTime,
        ),
        _table(
            "incidents",
            ("service", "epoch", "incident_id", "event"),
            **_EVENT,
            **_INCIDENT,
            cause=sa.String,
        ),
        _table(
            "incident_events",
            ("service", "epoch", "incident_id", "day", "event"),
            **_EVENT,
            **_INCIDENT,
            evidence=sa.JSON,
        ),
        _table(
            "gates",
            ("service", "decision_id"),
            **_EVENT,
            decision_id=sa.String,
            candidate=sa.String,
            rival=sa.String,
            verdict=sa.String,
            reasons=sa.JSON,
            numbers=sa.JSON,
            fingerprint=sa.String,
            versions=sa.JSON,
        ),
        _table(
            "releases",
            ("service", "decision_id", "role"),
            **_EVENT,
            **_MODEL,
            effective_at=sa.DateTime,
        ),
        _table(
            "trainings",
            ("service", "decision_id"),
            **_EVENT,
            decision_id=sa.String,
            known_on=sa.Date,
            rows=sa.BigInteger,
            features=sa.Integer,
            cpu_seconds=sa.Float,
            wall_seconds=sa.Float,
            peak_mib=sa.Float,
        ),
        _table(
            "changes",
            ("service", "epoch", "day", "kind", "subject"),
            **_EVENT,
            kind=sa.String,
            subject=sa.String,
            before=sa.String,
            after=sa.String,
            by=sa.String,
            reason=sa.String,
        ),
        _table(
            "alarm_budget",
            ("service", "epoch", "day", "scope"),
            **_EVENT,
            scope=sa.String,
            days=sa.Integer,
            alarms=sa.Integer,
            incidents=sa.Integer,
            severe=sa.Integer,
            answered=sa.Integer,
            false_alarms=sa.Integer,
            budget=sa.Float,
            real_share=sa.Float,
            low=sa.Float,
            high=sa.Float,
            state=sa.String,
            suggestion=sa.String,
        ),
        _table(
            "proposals",
            ("service", "decision_id", "role"),
            **_EVENT,
            **_MODEL,
        ),
        _table(
            "sign_offs",
            ("service", "decision_id"),
            **_EVENT,
            decision_id=sa.String,
            verdict=sa.String,
            by=sa.String,
            reason=sa.String,
            effective_at=sa.DateTime,
            recorded_at=sa.DateTime,
        ),
        _table(
            "divergences",
            ("service", "epoch", "day", "table_name", "would_be"),
            **_EVENT,
            table_name=sa.String,
            recorded=sa.String,
            would_be=sa.String,
            reason=sa.String,
            recorded_at=sa.DateTime,
        ),
        _table(
            "recomputations",
            ("service", "table_name", "version"),
            **_EVENT,
            first_day=sa.Date,
            table_name=sa.String,
            version=sa.Integer,
            recorded_at=sa.DateTime,
        ),
        _table(
            "consumed_inputs",
            ("service", "epoch", "input_id"),
            **_EVENT,
            input_id=sa.String,
        ),
        _table(
            "declarations",
            ("service", "feature_version"),
            service=sa.String,
            feature_version=sa.String,
            text=sa.Text,
            compiled=sa.Text,
            recorded_at=sa.DateTime,
        ),
        _table(
            "label_definitions",
            ("service", "label_version"),
            service=sa.String,
            label_version=sa.String,
            meaning=sa.JSON,
            fingerprint=sa.String,
            recorded_at=sa.DateTime,
        ),
        _table(
            "deliveries",
            ("service", "source", "arrival_day", "delivery"),
            service=sa.String,
            source=sa.String,
            arrival_day=sa.Date,
            delivery=sa.Integer,
            fingerprint=sa.String,
            outcome=sa.String,
            generation=sa.Integer,
            reason=sa.Text,
            bytes=sa.BigInteger,
            modified_ns=sa.BigInteger,
            recorded_at=sa.DateTime,
        ),
        _table(
            "inputs",
            ("service", "input_id"),
            service=sa.String,
            input_id=sa.String,
            kind=sa.String,
            subject=sa.String,
            by=sa.String,
            reason=sa.String,
            effective_day=sa.Date,
            recorded_at=sa.DateTime,
            details=sa.JSON,
        ),
    )
}
"""One row is one event; the primary key is its natural key, so that saying it twice says it once."""

LEASES = _table(
    "leases",
    ("service",),
    service=sa.String,
    number=sa.Integer,
    holder=sa.String,
    host=sa.String,
    pid=sa.Integer,
    heartbeat=sa.DateTime,
)
