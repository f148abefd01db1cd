"""Measure: how often labels are wrong, from a second reading of some of them, as known at the end of each day."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import literal, rows
from mlops_assets.monitoring_loop.metrics import Estimate, Noise, wilson
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.monitoring_loop.questions import Questions
from mlops_assets.service.labels import LabelNoise
from mlops_assets.service.service import MLService

WRONG = ("wrong_positive_share", "wrong_negative_share")


@dataclass(frozen=True)
class Audited:
    """Requests that were read twice: how many were truly negative and truly positive, and how many of each were
    labelled wrong."""

    negatives: int
    wrong_positives: int
    positives: int
    wrong_negatives: int

    def shares(self) -> Estimate:
        """Both shares of wrong labels, with Wilson's interval: of the negatives, of the positives."""
        n = np.array([self.negatives, self.positives], dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return wilson(np.array([self.wrong_positives, self.wrong_negatives]) / n, n)

    def reason(self, least: int) -> str | None:
        """Why the shares cannot be used, if they cannot."""
        for n, what in ((self.negatives, "negatives"), (self.positives, "positives")):
            if n < least:
                return f"{n} {what} were read twice, below {least}"
        wrong = float(self.shares().value.sum())
        return None if wrong < 1 else f"the shares of wrong labels add up to {wrong:.2f}: such labels say nothing"


NOTHING = Audited(0, 0, 0, 0)


def read_audits(
    con: duckdb.DuckDBPyConnection, service: MLService, labels: str, days: Sequence[date]
) -> dict[date, Audited]:
    """What was read twice by the end of each day; empty unless a second reading is declared.

    Reads ``quality_truth``, and the label events ``labels`` of the version of the second reading.
    """
    noise = service.label.noise
    if noise is None or noise.audited_by is None:
        return {}
    told = rows(con, audits_sql(labels, noise.audited_by, service.label.splits_at or 0.5, days))
    return {day: Audited(*(int(number) for number in numbers)) for day, *numbers in told}


def audits_sql(labels: str, version: str, splits_at: float, days: Sequence[date]) -> str:
    """SQL of ``(day, negatives, wrong_positives, positives, wrong_negatives)``: both readings as known by each day."""
    listed = ", ".join(f"({literal(day)})" for day in days)
    return f"""
        with audited as (
            select request_id, day as from_day, value > {splits_at!r} as is_positive,
                   coalesce(lead(day) over (partition by request_id order by known_at), date '9999-12-31') as until_day
            from {labels} where label_version = {literal(version)}
        )
        select d.day, count(*) filter (where not a.is_positive),
               count(*) filter (where not a.is_positive and t.value > {splits_at!r}),
               count(*) filter (where a.is_positive), count(*) filter (where a.is_positive and t.value <= {splits_at!r})
        from (values {listed}) as d(day)
        join audited as a on a.from_day <= d.day and d.day < a.until_day
        join quality_truth as t on t.request_id = a.request_id and t.from_day <= d.day and d.day < t.until_day
        where t.value is not null and a.is_positive is not null
        group by d.day
    """


@dataclass(frozen=True)
class Wrong:
    """The noise of the labels of every question, and why it is not known where it is not."""

    noise: Noise
    reasons: "np.ndarray[tuple[int], np.dtype[np.object_]]"

    @classmethod
    def of(cls, declared: LabelNoise, questions: Questions, audits: Mapping[date, Audited]) -> "Wrong":
        """Of each question as known on its day; what is declared is the same on every day."""
        size = len(questions.table)
        reasons = np.full(size, None, dtype=object)
        if declared.audited_by is None:
            shares = (declared.wrong_positive_share or 0.0, declared.wrong_negative_share or 0.0)
            return cls(Noise(np.full(size, shares[0]), np.full(size, shares[1])), reasons)
        found = np.full((2, size), np.nan)
        for place, day in enumerate(questions.table["day"]):
            audited = audits.get(day, NOTHING)
            reasons[place] = audited.reason(declared.min_audited)
            if reasons[place] is None:
                found[:, place] = audited.shares().value
        return cls(Noise(found[0], found[1]), reasons)


def audit_rows(service: MLService, audits: Mapping[date, Audited], days: Sequence[date]) -> Iterator[pd.DataFrame]:
    """Rows of table ``quality``: the estimated shares of wrong labels, under the day on which they are known."""
    noise = service.label.noise
    if noise is None or noise.audited_by is None:
        return
    for day in days:
        audited = audits.get(day, NOTHING)
        shares, why = audited.shares(), audited.reason(noise.min_audited)
        numbers = {"value": shares.value, "low": shares.low, "high": shares.high}
        yield pd.DataFrame(
            {
                "day": day, "prediction_day": day, "window_days": max(service.quality.windows_days), "version": SERVED,
                "role": SERVED, "slice": ALL, "metric": list(WRONG), "label_version": service.label.version,
                **{name: np.round(array, 9) if why is None else np.nan for name, array in numbers.items()},
                "n": [audited.negatives, audited.positives], "n_labelled": [audited.negatives, audited.positives],
                "state": "estimated" if why is None else "not_measured", "reason": why,
            }
        )  # fmt: skip
