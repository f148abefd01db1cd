"""Decide: whether the champion gives its place back, and to whom. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from mlops_assets.decisions import Decision, Kind
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.service.rollback import RollbackPolicy

CHAMPION = "champion"
OWN_PROMISES = ("objective:latency", "objective:errors", "objective:quality")
"""Promises that a version keeps or breaks; old features and late labels are nobody's version's fault."""


@dataclass(frozen=True)
class Tenure:
    """A version in a role, from the day its first request was asked to the last one (None: still)."""

    role: str
    model_version: str
    first: date
    last: date | None


def is_breach(cause: str) -> bool:
    """Whether an incident of this cause says that a version was not green."""
    return cause.startswith("quality:") or cause in OWN_PROMISES


def answered_on(cause: str, day: date, *, label_days: int) -> date:
    """The day whose answers a breach of ``day`` is about: labels speak of the newest mature day, the rest of its own.

    >>> answered_on("quality:brier", date(2013, 3, 9), label_days=2)
    datetime.date(2013, 3, 7)
    """
    is_about_labels = cause.startswith("quality:") or cause == "objective:quality"
    return day - timedelta(days=label_days) if is_about_labels else day


def target(
    tenures: Sequence[Tenure], breaches: Collection[date], *, mature_days: int, barred: Collection[str] = ()
) -> Tenure | None:
    """The last champion that was final-green, else the fallback; None: there is no other version.

    Green: no breach of quality or of a promise is about its time as champion, and it held the place long enough for
    its labels to be final.

    Args:
        tenures: oldest first.
        breaches: days whose answers an incident about quality or a promise is about, false alarms left out.
        mature_days: from this many days on, the oldest predictions of a tenure are mature.
        barred: versions that cannot answer any more.
    """
    champions = [one for one in tenures if one.role == CHAMPION]
    if not champions:
        return None
    now = champions[-1].model_version
    for one in reversed(champions[:-1]):
        is_mature = one.last is not None and one.last - one.first >= timedelta(days=mature_days)
        is_green = not any(one.first <= day and (one.last is None or day <= one.last) for day in breaches)
        if one.model_version != now and one.model_version not in barred and is_mature and is_green:
            return one
    fallback = [
        one for one in tenures if one.role == "fallback" and one.last is None and one.model_version not in barred
    ]
    return fallback[-1] if fallback and fallback[-1].model_version != now else None


def rollback(
    findings: Sequence[Finding],
    policy: RollbackPolicy,
    *,
    day: date,
    champion: str | None,
    since: date | None,
    to: Tenure | None,
    last_rollback: date | None,
    label_days: int,
) -> Decision | None:
    """The decision to roll back, if a severe breach asks for it, somebody can take over, and it is the first lately.

    Args:
        findings: of the day, gravest first.
        since: first day of the champion. A breach about earlier answers is none of its doing.
        last_rollback: day of the newest automatic rollback.
        label_days: age of the newest mature day.
    """
    grounds = [
        one for one in findings
        if one.tier == "severe" and one.cause.partition(":")[0] in policy.on and is_breach(one.cause)
        and since is not None and answered_on(one.cause, day, label_days=label_days) >= since
    ]  # fmt: skip
    is_again = last_rollback is not None and day - last_rollback < timedelta(days=policy.window_days)
    if not grounds or champion is None or to is None or is_again:
        return None
    because = f"{champion} gives its place to {to.model_version}, {_who(to)}: {grounds[0].reason}"
    evidence = {"day": day.isoformat(), "from": champion, "to": to.model_version, "cause": grounds[0].cause}
    return Decision(Kind.ROLLBACK, CHAMPION, because, evidence)


def _who(to: Tenure) -> str:
    return f"champion until {to.last} and green" if to.role == CHAMPION else "the fallback"
