"""What do daily metrics of ten million predictions cost beside a loop over scikit-learn, and how exact are they?

Three versions over 31 days, six slices: 93 version-days and 558 slices of them, 651 groups. The package starts from the
predictions of a day with their outcomes in the engine, where the day loop has them, the loop from a data frame; both
give Brier, log loss, AUC, calibration ratio and share of positives of every group, the package also what their
intervals need. CPU seconds are those of the process, all threads. AUC is compared apart for groups of 2,000 rows and
more, whose scores are counted in bins, and for smaller ones, which are exact; the second table has slices of 500 rows.

    python benchmarks/daily_quality.py
    python benchmarks/daily_quality.py --rows 1000000
"""

import argparse
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, open_engine, put, run
from mlops_assets.monitoring_loop import metrics, quality_counts
from mlops_assets.monitoring_loop.metrics import Completeness
from mlops_assets.monitoring_loop.quality_counts import HISTOGRAM_FROM
from mlops_assets.monitoring_loop.quality_sums import count_groups
from mlops_assets.monitoring_loop.questions import counts_of

DAYS, VERSIONS, SLICES = 31, 3, 6
NAMES = ("brier", "log_loss", "auc", "calibration_ratio", "positive_share")
Found = dict[tuple[str, str], dict[str, float]]


def a_day(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """The predictions of one day with their outcomes."""
    score = np.round(rng.beta(1, 5, rows), 9)
    return pd.DataFrame(
        {
            "version": np.array([f"m{n}" for n in range(VERSIONS)])[rng.integers(0, VERSIONS, rows)],
            "part": np.array([f"market={n}" for n in range(SLICES)])[rng.integers(0, SLICES, rows)],
            "score": score,
            "outcome": rng.random(rows) < score,
        }
    )


def scored_sql() -> str:
    """SQL of ``quality_scored``: the predictions of one day, as the day loop has them."""
    return """
        create or replace temp table quality_scored as
        select version, 'champion' as role, part as slice_0, round(score * 1e9)::bigint as score,
               outcome::double as value
        from answered
    """


def flat_sql() -> str:
    """SQL of ``quality_flat`` from the predictions of one day: every one is in slice *all* and in its own."""
    return f"""
        create or replace temp table quality_flat as
        select 1 as state, true as is_sliced, false as served, score, value, value > 0.5 as is_positive,
               rowid as source{quality_counts.hashes_sql(1)}
        from quality_scored
    """


def with_package(con: duckdb.DuckDBPyConnection) -> Found:
    """The package's way, from a day's predictions in the engine, where the day loop has them."""
    run(con, flat_sql())
    count_groups(con, 1, is_crossed=False)
    table = frame(con, all_counts_sql())
    counts = counts_of(table)
    known = Completeness.whole(len(table))
    values = {
        name: (metrics.daily_auc(counts, known) if name == "auc" else metrics.daily_ratio(name, counts, known)).value
        for name in NAMES
    }
    keys = zip(table["version"], table["slice"], strict=True)
    return {key: {name: float(values[name][place]) for name in NAMES} for place, key in enumerate(keys)}


def all_counts_sql() -> str:
    """SQL of every group's counts as doubles."""
    return """
        select version, slice, columns(* exclude (version, slice, role, state, group_id))::double from quality_counts
    """


def with_scikit_learn(day: pd.DataFrame) -> Found:
    """The loop."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    found = {}
    for version, of_version in day.groupby("version"):
        for part, rows in [("all", of_version), *of_version.groupby("part")]:
            y, p = rows["outcome"].to_numpy(), rows["score"].to_numpy()
            found[str(version), str(part)] = {
                "brier": brier_score_loss(y, p), "log_loss": log_loss(y, p), "auc": roc_auc_score(y, p),
                "calibration_ratio": y.sum() / p.sum(), "positive_share": y.mean(),
            }  # fmt: skip
    return found


def compare(rows: int, days: int) -> Iterator[str]:
    """CPU seconds of both and the largest difference of each metric."""
    rng, spent = np.random.default_rng(0), SimpleNamespace(package=0.0, loop=0.0)
    worst: dict[str, float] = {}
    groups = 0
    with open_engine() as con:
        ways: dict[str, Any] = {"package": lambda day: with_package(con), "loop": with_scikit_learn}
        put(con, "answered", a_day(rng, 20_000))
        run(con, scored_sql())
        for way in ways.values():
            way(a_day(rng, 20_000))  # imports and first calls do not count
        for _ in range(days):
            day, found = a_day(rng, rows // days), {}
            put(con, "answered", day)
            run(con, scored_sql())
            for name, way in ways.items():
                started = time.process_time()
                found[name] = way(day)
                setattr(spent, name, getattr(spent, name) + time.process_time() - started)
            groups += len(found["loop"])
            sizes = {(version, part): int(n) for (version, part), n in day.groupby(["version", "part"]).size().items()}
            sizes |= {(version, "all"): int(n) for version, n in day.groupby("version").size().items()}
            for key, expected in found["loop"].items():
                is_large = sizes[key] >= HISTOGRAM_FROM
                for metric in NAMES:
                    name = f"auc of {'large' if is_large else 'small'} groups" if metric == "auc" else metric
                    worst[name] = max(worst.get(name, 0.0), abs(found["package"][key][metric] - expected[metric]))
    yield f"{rows:,} rows, {groups} groups of about {rows * 2 / groups:,.0f} rows"
    times = spent.loop / spent.package
    yield f"  scikit-learn loop {spent.loop:.1f} CPU s, package {spent.package:.1f} CPU s: {times:.1f}x less"
    yield "  largest difference: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items())


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    asked = parser.parse_args()
    for text in (*compare(asked.rows, DAYS), *compare(9_000, 1)):
        print(text, flush=True)


if __name__ == "__main__":
    main()
