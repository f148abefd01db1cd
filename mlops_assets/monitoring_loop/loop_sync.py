"""Judge: do the four loops still speak of the same thing? Four clocks and their fingerprints, compared daily.

A model goes wrong without any code change when its loops part: the label means something new and training still
learns the old one, serving reads features of another version, the monitor looks at older data than the model.
Each such mismatch is a named check with a tier; the clocks themselves are rows too, so that a lag can be drawn.
Pure: every row of day D is a function of what was known at the end of D.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True)
class SourceClock:
    """Newest row of one source by the end of the day; ``max_age_hours`` is the strictest promise of its views."""

    source: str
    newest_at: datetime | None
    age_hours: float | None
    max_age_hours: float | None


@dataclass(frozen=True)
class ModelClock:
    """The champion: trained as of the end of ``trained_on`` on this snapshot, features and label definition.

    ``label`` is the definition in force on ``trained_on`` (version and fingerprint), ``events`` the known events of
    that day (how many, fingerprint); None: not recorded then.
    """

    model_version: str
    trained_on: date
    fingerprint: str
    feature_version: str
    label: str | None
    events: str | None = None


@dataclass(frozen=True)
class Clocks:
    """What the four loops say at the end of one day.

    Attributes:
        inputs: fingerprint of the file generations that the day could use.
        champion: who held the role at the end of the day; None before the first release.
        served: feature version -> requests that the champion answered on it.
        profiled: feature version -> newest profiled day, and its rows.
        features: the declared feature version.
        label: the label definition in force, version and fingerprint.
        newest_mature_day: the last prediction day whose label window is over.
        label_window_days: length of that window, rounded up to days.
        events: the known events that are declared by the end of the day: how many, and a fingerprint.
        events_then: what today's file says was known on the day of the champion's training.
        failed: decisions to train that failed and were not carried out since, with what went wrong.
    """

    day: date
    inputs: str
    sources: Sequence[SourceClock]
    champion: ModelClock | None
    served: Mapping[str, int]
    profiled: Mapping[str, tuple[date, int]]
    features: str
    label: str
    newest_mature_day: date
    label_window_days: int
    failed: Mapping[str, str]
    events: str = ""
    events_then: str = ""


@dataclass(frozen=True)
class Sync:
    """One row of table ``loop_sync``; ``state`` is agrees, lags, differs, failed or none (nothing to compare)."""

    day: date
    check: str
    clock: str
    fingerprint: str
    lag_days: float | None
    limit_days: float | None
    state: str
    tier: str
    reason: str


def compare_clocks(clocks: Clocks, *, max_model_age_days: int | None) -> list[Sync]:
    """The rows of one day: the four clocks, then the named checks."""
    return [
        *data_clocks(clocks),
        training_clock(clocks, max_model_age_days),
        label_clock(clocks),
        monitoring_clock(clocks),
        label_semantics(clocks),
        serving_features(clocks),
        declared_features(clocks),
        event_calendar(clocks),
        training_failed(clocks),
    ]


def data_clocks(clocks: Clocks) -> Iterator[Sync]:
    """One row per source: how old its newest row is. A source that is too old is told by its own finding."""
    for one in clocks.sources:
        lag = None if one.age_hours is None else round(one.age_hours / 24, 9)
        limit = None if one.max_age_hours is None else round(one.max_age_hours / 24, 9)
        state, reason = "agrees", "as promised" if limit is not None else "no promise"
        if lag is None:
            state, reason = "none", "nothing has arrived yet"
        elif limit is not None and lag > limit:
            state, reason = "lags", f"{one.source}: newest row {lag:.1f} days old, promised {limit:.1f}"
        clock = "" if one.newest_at is None else one.newest_at.isoformat()
        yield Sync(clocks.day, f"data:{one.source}", clock, clocks.inputs, lag, limit, state, "stable", reason)


def training_clock(clocks: Clocks, limit: int | None) -> Sync:
    """The champion's age beside the retraining SLO."""
    champion = clocks.champion
    if champion is None:
        return Sync(clocks.day, "training", "", "", None, limit, "none", "stable", "no champion yet")
    age = (clocks.day - champion.trained_on).days
    row = Sync(
        clocks.day, "training", champion.trained_on.isoformat(), champion.fingerprint, age, limit, "agrees", "stable",
        f"{champion.model_version} is {age} days old",
    )  # fmt: skip
    if limit is None or age <= limit:
        return row
    words = f"champion {champion.model_version} is {age} days old, the retraining SLO allows {limit}"
    return Sync(*_head(row), "lags", "moderate", words)


def _head(row: Sync) -> tuple[date, str, str, str, float | None, float | None]:
    return row.day, row.check, row.clock, row.fingerprint, row.lag_days, row.limit_days


def label_clock(clocks: Clocks) -> Sync:
    """The newest prediction day whose labels are all in."""
    lag, limit = (clocks.day - clocks.newest_mature_day).days, clocks.label_window_days + 1
    is_late = lag > limit
    words = f"labels are complete up to {clocks.newest_mature_day}"
    return Sync(
        clocks.day, "label", clocks.newest_mature_day.isoformat(), clocks.label, lag, limit,
        "lags" if is_late else "agrees", "stable", words,
    )  # fmt: skip


def monitoring_clock(clocks: Clocks) -> Sync:
    """Whether what answered was also profiled: the monitor must not look at older data than the model."""
    row = Sync(clocks.day, "monitoring", clocks.day.isoformat(), ", ".join(sorted(clocks.served)), 0, 0, "agrees",
               "stable", "every answered request was profiled")  # fmt: skip
    if not clocks.served:
        return Sync(*_head(row)[:4], None, 0, "none", "stable", "the champion answered nothing")
    for version, answered in sorted(clocks.served.items()):
        newest, n = clocks.profiled.get(version, (None, 0))
        if newest != clocks.day:
            lag = None if newest is None else (clocks.day - newest).days
            seen = "nothing" if newest is None else f"data of {newest}"
            words = f"the monitor sees {seen} of feature version {version}, the model answered on {clocks.day}"
            clock = "" if newest is None else newest.isoformat()
            return Sync(clocks.day, "monitoring", clock, version, lag, 0, "lags", "moderate", words)
        if n < answered:
            words = f"the monitor saw {n} rows of feature version {version}, the model answered {answered}"
            return Sync(*_head(row), "differs", "moderate", words)
    return row


def label_semantics(clocks: Clocks) -> Sync:
    """Whether the champion learned what the label means today."""
    champion = clocks.champion
    if champion is None or champion.label is None:
        reason = "no champion yet" if champion is None else "the label of its training is not recorded"
        return Sync(clocks.day, "label_semantics", "", clocks.label, None, None, "none", "stable", reason)
    lag = (clocks.day - champion.trained_on).days
    row = Sync(clocks.day, "label_semantics", champion.trained_on.isoformat(), clocks.label, lag, None, "agrees",
               "stable", f"{champion.model_version} learned {clocks.label}")  # fmt: skip
    if champion.label == clocks.label:
        return row
    is_silent = champion.label.partition(" ")[0] == clocks.label.partition(" ")[0]
    words = (
        f"label semantics changed from {champion.label} to {clocks.label}, "
        f"{'under the same version name, ' if is_silent else ''}"
        f"while {champion.model_version} still uses the old one"
    )
    return Sync(*_head(row), "differs", "moderate", words)


def serving_features(clocks: Clocks) -> Sync:
    """Whether the champion is fed with the feature version it was trained on."""
    champion = clocks.champion
    if champion is None or not clocks.served:
        return Sync(clocks.day, "serving_features", "", "", None, None, "none", "stable", "no champion answered")
    row = Sync(clocks.day, "serving_features", champion.trained_on.isoformat(), champion.feature_version, None, None,
               "agrees", "stable", f"served and trained on {champion.feature_version}")  # fmt: skip
    others = sorted(set(clocks.served) - {champion.feature_version})
    if not others:
        return row
    words = (
        f"serving uses feature version {', '.join(others)}, {champion.model_version} was trained on "
        f"{champion.feature_version}"
    )
    return Sync(*_head(row), "differs", "moderate", words)


def declared_features(clocks: Clocks) -> Sync:
    """Whether the champion reads what is declared; after a change it lags until the next training, by design."""
    champion = clocks.champion
    if champion is None:
        return Sync(clocks.day, "declared_features", "", clocks.features, None, None, "none", "stable", "no champion")
    lag = (clocks.day - champion.trained_on).days
    is_same = champion.feature_version == clocks.features
    words = "as declared" if is_same else f"{champion.feature_version} until the next training, declared is newer"
    return Sync(
        clocks.day, "declared_features", champion.trained_on.isoformat(), clocks.features, lag, None,
        "agrees" if is_same else "lags", "stable", words,
    )  # fmt: skip


def event_calendar(clocks: Clocks) -> Sync:
    """Whether training and monitoring know the same planned changes.

    Events declared since the training only lag: the model learned days that the monitor now explains. An event of
    that time that reads differently today was rewritten: a note.
    """
    champion = clocks.champion
    if champion is None or champion.events is None:
        reason = "no champion yet" if champion is None else "the events of its training are not recorded"
        return Sync(clocks.day, "events", "", clocks.events, None, None, "none", "stable", reason)
    lag = (clocks.day - champion.trained_on).days
    row = Sync(clocks.day, "events", champion.trained_on.isoformat(), clocks.events, lag, None, "agrees", "stable",
               f"{champion.model_version} was trained when the same events were known")  # fmt: skip
    if champion.events != clocks.events_then:
        words = (
            f"the known events of {champion.trained_on} were rewritten since: {champion.events} then, "
            f"{clocks.events_then} now"
        )
        return Sync(*_head(row), "differs", "expected", words)
    new = int(clocks.events.partition(" ")[0]) - int(clocks.events_then.partition(" ")[0])
    if not new:
        return row
    words = f"{new} known events were declared after {champion.model_version} was trained"
    return Sync(*_head(row), "lags", "stable", words)


def training_failed(clocks: Clocks) -> Sync:
    """A training that failed is an incident: otherwise a months-old model goes on answering and nobody knows."""
    if not clocks.failed:
        return Sync(clocks.day, "training_failed", "", "", None, None, "agrees", "stable", "no training failed")
    named = "; ".join(f"{decision}: {words}" for decision, words in sorted(clocks.failed.items()))
    return Sync(clocks.day, "training_failed", "", "", None, None, "failed", "moderate", f"training failed: {named}")
