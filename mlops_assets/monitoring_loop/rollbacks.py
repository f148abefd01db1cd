"""Decide: whether the champion gives its place back, and to whom. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from mlops_assets.decisions import Decision, Kind
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.service.rollback import RollbackPolicy

CHAMPION = "champion"


@dataclass(frozen=True)
class Tenure:
    """A version in a role, from the day its first request was asked to the last one (None: still)."""

    role: str
    model_version: str
    first: date
    last: date | None


def target(tenures: Sequence[Tenure], breaches: Collection[date], *, mature_days: int) -> Tenure | None:
    """The last champion that was final-green, else the fallback; None: there is no other version.

    Green: in its time as champion no breach of quality or of a promise began, and it held the place long enough for
    its labels to be final.

    Args:
        tenures: oldest first.
        breaches: days on which an incident about quality or a promise opened, false alarms left out.
        mature_days: from this many days on, the oldest predictions of a tenure are mature.
    """
    champions = [one for one in tenures if one.role == CHAMPION]
    if not champions:
        return None
    now = champions[-1].model_version
    for one in reversed(champions[:-1]):
        is_mature = one.last is not None and one.last - one.first >= timedelta(days=mature_days)
        is_green = not any(one.first <= day and (one.last is None or day <= one.last) for day in breaches)
        if one.model_version != now and is_mature and is_green:
            return one
    fallback = [one for one in tenures if one.role == "fallback" and one.last is None]
    return fallback[-1] if fallback and fallback[-1].model_version != now else None


def rollback(
    findings: Sequence[Finding],
    policy: RollbackPolicy,
    *,
    day: date,
    champion: str | None,
    to: Tenure | None,
    last_rollback: date | None,
) -> Decision | None:
    """The decision to roll back, if a severe breach asks for it, somebody can take over, and it is the first lately.

    Args:
        findings: of the day, gravest first.
        last_rollback: day of the newest automatic rollback.
    """
    grounds = [one for one in findings if one.tier == "severe" and one.cause.partition(":")[0] in policy.on]
    is_again = last_rollback is not None and day - last_rollback < timedelta(days=policy.window_days)
    if not grounds or champion is None or to is None or is_again:
        return None
    because = f"{champion} gives its place to {to.model_version}, {_who(to)}: {grounds[0].reason}"
    evidence = {"day": day.isoformat(), "from": champion, "to": to.model_version, "cause": grounds[0].cause}
    return Decision(Kind.ROLLBACK, CHAMPION, because, evidence)


def _who(to: Tenure) -> str:
    return f"champion until {to.last} and green" if to.role == CHAMPION else "the fallback"
