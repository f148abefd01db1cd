"""Explain: is a metric worse because other requests came, or because the same ones turn out differently? And where?

The rows of two periods are counted in bins of the score. The covariate part is what the new mix of scores would
have cost at the old loss of each bin; the concept part is what the same scores cost more. The same holds for how far
observed and predicted positives are apart, and for the AUC of the bins. Without the split every
drop is blamed on drift. Reweighting within bins follows E. M. Kitagawa, JASA 50 (1955), 1168-1194 (each part at the
mean of both periods, so that they add up exactly), on the shared support of both, as in T. T. Cai, H. Namkoong and
S. Yadlowsky, *Diagnosing Model Performance Under Distribution Shift* (2023): a bin that only one period has is part of
the covariate shift. The day is the unit of the intervals: a jackknife that leaves out one day at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from mlops_assets.adapters.engine import frame, literal, quote, slices_sql
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.labels import LabelDefinition

Floats = NDArray[np.float64]

BINS = 20
"""Bins of the score, equally wide in asin(sqrt(score)): narrow near 0 and 1."""
USUAL_DAYS = 28
MIN_DAYS = 3
"""Below so many days in one of the periods nothing is said."""
NAMED_SLICES = 3
MIN_SLICE_SHARE = 0.3
"""A slice is listed from this share of the change on, if that is twice its share of the rows."""
PRIOR_REQUESTS = 50
"""The usual share of a slice is held towards that of all as if so many more requests had been seen."""
UNUSUAL_Z = 6.0
MIN_UNUSUAL = 5
MIN_UNUSUAL_SHARE = 0.10


@dataclass(frozen=True)
class Part:
    """One part of a change, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def in_words(self) -> str:
        """The number with its interval."""
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


class HeldBy(NamedTuple):
    """A slice that holds most of a change: its share of it with a 95 % interval, and the two parts of its own change.

    No parts: it has too few days with labels.
    """

    slice: str
    share: float
    low: float
    high: float
    covariate: Part | None = None
    concept: Part | None = None

    def in_words(self) -> str:
        """The end of a sentence."""
        told = f"{self.slice} holds {self.share:.0%} of the change ({self.low:.0%} to {self.high:.0%})"
        parts = [(name, part) for name, part in (("covariate", self.covariate), ("concept", self.concept)) if part]
        inside = ", ".join(f"{name} {part.in_words()}" for name, part in parts)
        return told + (f", in itself {inside}" if inside else "")


MEASURES = {
    "brier": ("mean loss", "(score - value) * (score - value)"),
    "log_loss": ("mean loss", "-ln(greatest(if(value > 0.5, score, 1 - score), 2.220446049250313e-16))"),
    "calibration_ratio": ("observed minus predicted positives", "value - score"),
    "auc": ("AUC over score bins", "value"),
}
"""Metric -> what changes, in words, and what is summed up per bin, as SQL over score and value."""


@dataclass(frozen=True)
class Explanation:
    """A change of a measure from one period to another: total = covariate + concept; slices that hold most of it."""

    before: float
    after: float
    covariate: Part
    concept: Part
    slices: tuple[HeldBy, ...] = ()
    what: str = "mean loss"

    @property
    def kind(self) -> str:
        """Which it is: covariate, concept, both, or unclear (neither part is surely different from zero)."""
        sure = [name for name in ("covariate", "concept") if getattr(self, name).is_sure]
        return "both" if len(sure) == 2 else (sure or ["unclear"])[0]

    def in_words(self) -> str:
        """One sentence for the reason of a finding."""
        meaning = {
            "covariate": "other requests came (covariate shift)",
            "concept": "the same scores turn out differently (concept shift)",
            "both": "other requests came, and the same scores turn out differently",
            "unclear": "neither part is certain",
        }[self.kind]
        parts = ", ".join(
            f"{name} {part.in_words()}" for name, part in (("covariate", self.covariate), ("concept", self.concept))
        )
        where = "".join(f"; {one.in_words()}" for one in self.slices)
        return f"{self.what} {self.before:.4f} -> {self.after:.4f}: {meaning}; {parts}{where}"


Value = Callable[[Floats, Floats], Floats]
"""A measure from the mix of the bins (shares of rows) and what is summed up per row in each."""


def mean_of(mix: Floats, rate: Floats) -> Floats:
    """The mean over all rows."""
    found: Floats = (mix * rate).sum(axis=-1)
    return found


def auc_of(mix: Floats, rate: Floats) -> Floats:
    """Chance that a positive lies in a higher bin than a negative, ties counting half; not a number without both."""
    positive, negative = mix * rate, mix * (1 - rate)
    below = np.cumsum(negative, axis=-1) - negative / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (positive * below).sum(axis=-1) / (positive.sum(axis=-1) * negative.sum(axis=-1))
    return found


def split(
    n_before: Floats, loss_before: Floats, n_after: Floats, loss_after: Floats, value: Value = mean_of
) -> tuple[Floats, Floats]:
    """Covariate and concept part of the change of a measure, from counts and sums per bin (last axis).

    Each part is the mean of what it adds before and after the other one (L. S. Shapley, 1953), which for a mean is
    Kitagawa's split; they add up exactly.
    """
    mix_before = n_before / n_before.sum(axis=-1, keepdims=True)
    mix_after = n_after / n_after.sum(axis=-1, keepdims=True)
    old, new = _rates(n_before, loss_before, n_after, loss_after)
    was, mixed, worse, now = (
        value(mix, rate) for mix, rate in ((mix_before, old), (mix_after, old), (mix_before, new), (mix_after, new))
    )
    return ((mixed - was) + (now - worse)) / 2, ((worse - was) + (now - mixed)) / 2


def _rates(n_before: Floats, loss_before: Floats, n_after: Floats, loss_after: Floats) -> tuple[Floats, Floats]:
    """Sums per row of each bin; a bin that one period lacks is taken from the other one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        old, new = loss_before / n_before, loss_after / n_after
    old, new = np.where(n_before > 0, old, new), np.where(n_after > 0, new, old)
    return np.nan_to_num(old), np.nan_to_num(new)


def decompose(
    n_before: Floats, loss_before: Floats, n_after: Floats, loss_after: Floats, value: Value = mean_of
) -> Explanation | None:
    """Split a change of a measure; None below ``MIN_DAYS`` days with rows in one of the periods, or if it has no value.

    Args:
        n_before, n_after: labelled rows per day and bin.
        loss_before, loss_after: their summed losses.
    """
    kept, now = n_before.sum(axis=1) > 0, n_after.sum(axis=1) > 0
    n_before, loss_before, n_after, loss_after = n_before[kept], loss_before[kept], n_after[now], loss_after[now]
    if min(len(n_before), len(n_after)) < MIN_DAYS:
        return None
    whole = [array.sum(axis=0) for array in (n_before, loss_before, n_after, loss_after)]
    parts = np.array(split(whole[0], whole[1], whole[2], whole[3], value))
    without_before = np.array(split(whole[0] - n_before, whole[1] - loss_before, whole[2], whole[3], value))
    without_after = np.array(split(whole[0], whole[1], whole[2] - n_after, whole[3] - loss_after, value))
    variance = _jackknife(without_before) + _jackknife(without_after)
    half = stdtrit(min(len(n_before), len(n_after)) - 1, 0.975) * np.sqrt(variance)
    covariate, concept = (
        Part(*(round(float(x), 9) for x in (part, part - wide, part + wide)))
        for part, wide in zip(parts, half, strict=True)
    )
    old, new = _rates(whole[0], whole[1], whole[2], whole[3])
    before, after = value(whole[0] / whole[0].sum(), old), value(whole[2] / whole[2].sum(), new)
    if np.isnan([before, after, *half]).any():
        return None
    return Explanation(round(float(before), 9), round(float(after), 9), covariate, concept)


def _jackknife(without: Floats) -> Floats:
    """Variance from the estimates that leave one day out (B. Efron and C. Stein, Annals of Statistics 9, 1981)."""
    days = without.shape[-1]
    centred = without - without.mean(axis=-1, keepdims=True)
    variance: Floats = (days - 1) / days * (centred**2).sum(axis=-1)
    return variance


Sums = Mapping[str, tuple[float, float]]
"""Slice (``all`` among them) -> labelled rows and their summed loss."""


def holding_slices(before: Sums, after: Sums) -> tuple[tuple[str, float], ...]:
    """Slices that hold most of a change of mean loss, with their share of it, largest first.

    A slice holds what its rows lose now beyond what they would at its own old mean loss, which is held towards
    that of all where few rows were seen.
    """
    rows_after = after[ALL][0]
    found = []
    for name, (n, _loss) in after.items():
        share = held_share(name, before, after)
        if name != ALL and share >= max(MIN_SLICE_SHARE, 2 * n / rows_after):
            found.append((name, round(min(share, 1.0), 9)))
    return tuple(sorted(found, key=lambda one: (-one[1], one[0]))[:NAMED_SLICES])


def held_share(name: str, before: Sums, after: Sums) -> float:
    """What the rows of a slice cost beyond its own old mean, as a share of what all rows cost beyond theirs."""
    nothing = (0.0, 0.0)
    return float(_shares(*before[ALL], *after[ALL], *before.get(name, nothing), *after.get(name, nothing)))


def explain_change(
    con: duckdb.DuckDBPyConnection,
    *,
    predictions: str,
    labels: str,
    label: LabelDefinition,
    slices: Sequence[str],
    metric: str,
    after: Sequence[date],
    before: Sequence[date],
    as_of: date,
) -> Explanation | None:
    """Why the mean loss of what answered changed between two sets of prediction days; None: too few days.

    Args:
        predictions, labels: relations of these tables' shapes that hold the days.
        slices: names in the JSON ``context`` of a prediction.
        metric: one of ``MEASURES``.
        after, before: prediction days of the two periods.
        as_of: the day at whose end the labels are read.
    """
    counted = frame(con, binned_sql(predictions, labels, label, slices, metric, [*before, *after], as_of))
    counted["day"] = counted["day"].dt.date
    value = auc_of if metric == "auc" else mean_of
    n_before, loss_before, n_after, loss_after = _grids(counted, ALL, before, after)
    found = decompose(n_before, loss_before, n_after, loss_after, value)
    if found is None:
        return None
    found = replace(found, what=MEASURES[metric][0])
    if found.kind == "unclear" or metric == "auc":  # ranks of different slices do not add up
        return found
    named = holding_slices(sums_of(counted, before), sums_of(counted, after))
    return replace(found, slices=tuple(held_by(counted, name, share, before, after) for name, share in named))


def _grids(counted: pd.DataFrame, name: str, before: Sequence[date], after: Sequence[date]) -> list[Floats]:
    """Rows and sums of a slice as (day, bin), before and after."""
    of_slice = counted[counted["slice"] == name]

    def grid(days: Sequence[date], column: str) -> Floats:
        laid = of_slice.pivot(index="day", columns="bin", values=column).reindex(
            index=sorted(days), columns=range(BINS), fill_value=0.0
        )
        return laid.fillna(0.0).to_numpy(dtype="float64")

    return [grid(days, column) for days in (before, after) for column in ("n", "loss")]


def held_by(counted: pd.DataFrame, name: str, share: float, before: Sequence[date], after: Sequence[date]) -> HeldBy:
    """A slice with the interval of its share (a jackknife over days) and the parts of its own change."""
    n_before, loss_before, n_after, loss_after = _grids(counted, name, before, after)
    days = [grid.sum(axis=1) for grid in (*_grids(counted, ALL, before, after), *_grids(counted, name, before, after))]
    whole = [float(day.sum()) for day in days]
    variance = 0.0
    for periods in ((0, 1, 4, 5), (2, 3, 6, 7)):  # one day of before left out, then one of after
        left = [
            total - day if at in periods else total for at, (total, day) in enumerate(zip(whole, days, strict=True))
        ]
        variance += float(_jackknife(_shares(*left)))
    half = float(stdtrit(min(len(before), len(after)) - 1, 0.975)) * variance**0.5
    own = decompose(n_before, loss_before, n_after, loss_after)
    parts = (own.covariate, own.concept) if own else (None, None)
    return HeldBy(name, share, round(share - half, 9), round(share + half, 9), *parts)


Number = Floats | float


def _shares(
    rows_before: Number, loss_before: Number, rows_after: Number, loss_after: Number,
    seen: Number, lost: Number, n: Number, loss: Number,
) -> Floats:  # fmt: skip
    """What a slice (the last four) costs beyond its own old mean, as a share of what all (the first four) cost."""
    usual = np.asarray(loss_before, dtype="float64") / rows_before
    change = loss_after - rows_after * usual
    old = (lost + PRIOR_REQUESTS * usual) / (seen + PRIOR_REQUESTS)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(change != 0, (loss - n * old) / change, 0.0)
    return found


def sums_of(counted: pd.DataFrame, days: Sequence[date]) -> dict[str, tuple[float, float]]:
    """Rows and loss of every slice over some days."""
    part = counted[counted["day"].isin(list(days))].groupby("slice", sort=True)[["n", "loss"]].sum()
    return {str(name): (float(n), float(loss)) for name, n, loss in part.itertuples()}


def binned_sql(
    predictions: str,
    labels: str,
    label: LabelDefinition,
    slices: Sequence[str],
    metric: str,
    days: Sequence[date],
    as_of: date,
) -> str:
    """SQL of ``(day, slice, bin, n, loss)``: labelled answers by prediction day, slice and score bin.

    Losses are summed up in 1e-12, so that the order of the rows does not matter; log loss is cut off where
    scikit-learn does.
    """
    window = f"to_microseconds({round(label.window_hours * 3_600_000_000)})"
    return f"""
        select prediction_day as day, slice, bin, count(*)::double as n, sum(loss)::double / 1e12 as loss
        from (
            select prediction_day, unnest({slices_sql(sorted(slices))}) as slice,
                   least(floor({BINS} * 2 / pi() * asin(sqrt(score))), {BINS - 1})::integer as bin,
                   round(({MEASURES[metric][1]}) * 1e12)::hugeint as loss
            from {quote(predictions)} p
            join (
                select request_id as labelled, arg_max(value, known_at) as value
                from {quote(labels)} l join {quote(predictions)} q using (request_id)
                where l.label_version = {literal(label.version)} and l.day <= {literal(as_of)} and q.served
                  and l.event_at <= q.predicted_at + {window}
                group by request_id
            ) on labelled = p.request_id
            where p.served and value is not null and prediction_day in ({", ".join(map(literal, days))})
        )
        group by all order by all
    """


@dataclass(frozen=True)
class UnusualSlice:
    """One slice on one day that holds far more of something bad than it usually does."""

    day: date
    slice: str
    n: int
    bad: int
    share: float
    expected: float
    scale: float
    z: float

    def in_words(self, what: str) -> str:
        """The finding as a person would say it."""
        return (
            f"{what}: {self.share:.0%} of {self.slice} without a value ({self.bad} of {self.n}), expected "
            f"{self.expected:.1%} (z {self.z:.1f})"
        )


def unusual_slices(table: pd.DataFrame, days: Sequence[date]) -> list[UnusualSlice]:
    """Slices whose bad share of the day stands out from their own four weeks and from what all others do that day.

    A route that is shut moves the whole by a point and its own slice by half: it is found here or not at all. The
    expected share is the slice's own, held towards that of all by ``PRIOR_REQUESTS`` requests and lifted where all
    are worse that day; the scale is binomial, widened by how much the slice's days usually differ (Pearson's
    overdispersion; P. McCullagh and J. A. Nelder, Generalized Linear Models, 2nd ed. 1989, ch. 4.5).

    Args:
        table: ``day, slice, n, bad``, with slice *all*, from ``USUAL_DAYS`` before the first day on.
        days: days to judge; one without four weeks of history has no unusual slice.
    """
    if table.empty:
        return []
    dated = table.assign(day=pd.to_datetime(table["day"]))
    counts = dated.pivot(index="day", columns="slice", values="n")
    wanted = pd.date_range(min(days) - pd.Timedelta(days=USUAL_DAYS), max(days))
    counts = counts.reindex(wanted).sort_index(axis=1).fillna(0.0).astype("float64")
    bads = dated.pivot(index="day", columns="slice", values="bad").reindex(wanted).sort_index(axis=1)
    n, bad = counts.to_numpy(), bads.fillna(0.0).astype("float64").to_numpy()
    names = list(counts.columns)
    whole = names.index(ALL)
    found = []
    for day in sorted(days):
        at = (day - wanted[0].date()).days
        past_n, past_bad = n[at - USUAL_DAYS : at], bad[at - USUAL_DAYS : at]
        if n[at, whole] > 0 and (past_n[:, whole] > 0).sum() >= USUAL_DAYS // 2:
            expected, scale = _usual(past_n, past_bad, n[at], bad[at], whole)
            found += _standing_out(day, names, whole, n[at], bad[at], expected, scale)
    return found


def _usual(past_n: Floats, past_bad: Floats, n: Floats, bad: Floats, whole: int) -> tuple[Floats, Floats]:
    """Expected bad events of each slice today, and their standard deviation."""
    everywhere = past_bad[:, whole].sum() / past_n[:, whole].sum()
    usual = (past_bad.sum(axis=0) + PRIOR_REQUESTS * everywhere) / (past_n.sum(axis=0) + PRIOR_REQUESTS)
    lift = max(bad[whole] / n[whole] / everywhere, 1.0) if everywhere > 0 else 1.0
    share = np.minimum(usual * lift, 0.999)
    variance = np.maximum(past_n * usual * (1 - usual), 1e-9)
    days = np.maximum((past_n > 0).sum(axis=0) - 1, 1)
    differ = np.where(past_n > 0, (past_bad - past_n * usual) ** 2 / variance, 0.0).sum(axis=0) / days
    scale = np.sqrt(np.maximum(n * share * (1 - share) * np.maximum(differ, 1.0), 0.25))
    return n * share, scale


def _standing_out(
    day: date, names: Sequence[str], whole: int, n: Floats, bad: Floats, expected: Floats, scale: Floats
) -> list[UnusualSlice]:
    """The slices of one day that pass all three gates, most surprising first."""
    excess = bad - expected
    z = excess / scale
    is_large = (excess >= MIN_UNUSUAL) & (excess >= MIN_UNUSUAL_SHARE * n) & (z >= UNUSUAL_Z)
    return [
        UnusualSlice(
            day, names[i], int(n[i]), int(bad[i]), round(float(bad[i] / n[i]), 9), round(float(expected[i] / n[i]), 9),
            round(float(scale[i] / n[i]), 9), round(float(min(z[i], 99.0)), 9),
        )
        for i in sorted(map(int, np.flatnonzero(is_large)), key=lambda i: (-z[i], names[i]))
        if i != whole
    ]  # fmt: skip
