"""What do daily metrics of ten million predictions cost beside a loop over scikit-learn, and how exact are they?

Three versions over 31 days, six slices: 93 version-days and 558 slices of them, 651 groups. Both give Brier, log loss,
AUC, calibration ratio and share of positives of every group, the package also what their intervals need. The loop
starts from a data frame of each day, the package from the predictions of a block of days with their outcomes in the
engine, where the day loop has them (`quality_scored`); what it costs to read these and the names from the files of the
lake is printed, too. CPU seconds are those of the process, all threads. AUC is compared apart for groups of 2,000 rows
and more, whose scores are counted in bins, and for smaller ones, which are exact; the second table has slices of 500
rows.

    python benchmarks/daily_quality.py
    python benchmarks/daily_quality.py --rows 1000000
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from deltalake import write_deltalake

from mlops_assets.adapters.engine import frame, open_engine, run, slice_sql
from mlops_assets.monitoring_loop import metrics, quality_counts
from mlops_assets.monitoring_loop.metrics import Completeness
from mlops_assets.monitoring_loop.quality_counts import HISTOGRAM_FROM, SLICED_MARK
from mlops_assets.monitoring_loop.quality_sums import count_groups
from mlops_assets.monitoring_loop.questions import counts_of
from mlops_assets.service.labels import LabelDefinition

DAYS, BLOCK, VERSIONS, SLICES = 31, 4, 3, 6
SLICE = "market"
NAMES = ("brier", "log_loss", "auc", "calibration_ratio", "positive_share")
LABEL = LabelDefinition(
    version="v1", source="outcomes", request_id="id", value="outcome", window_hours=1, never_labelled="never told"
)
Found = dict[tuple[int, str, str], dict[str, float]]


def a_day(rng: np.random.Generator, day: int, rows: int) -> pd.DataFrame:
    """The predictions of one day with their outcomes."""
    score, market = np.round(rng.beta(1, 5, rows), 9), rng.integers(0, SLICES, rows)
    return pd.DataFrame(
        {
            "day": day,
            "model_version": np.array([f"m{n}" for n in range(VERSIONS)])[rng.integers(0, VERSIONS, rows)],
            "role": "champion",
            "context": np.array([f'{{"{SLICE}": "{n}"}}' for n in range(SLICES)])[market],
            "slice": np.array([f"{SLICE}={n}" for n in range(SLICES)])[market],
            "score": score,
            "outcome": rng.random(rows) < score,
        }
    )


def answered_sql(files: list[str]) -> str:
    """SQL of a view of the predictions of a block."""
    return f"create or replace temp view answered as select *, false as served from read_parquet({files})"


def scored_sql() -> str:
    """SQL of ``quality_scored``, as the product makes it, with the outcomes."""
    return f"""
        create or replace temp table quality_scored as
        select day, {quality_counts.who_sql("model_version", "role")} as who,
               {quality_counts.code_sql(slice_sql(SLICE))} as code_0, round(score * 1e9)::integer as score,
               {quality_counts.flags_sql("score")} as flags, outcome::double as value
        from answered
    """


def flat_sql() -> str:
    """SQL of ``quality_flat``: every prediction counts in its version, in slice *all* and in its own."""
    return f"""
        select day as state, coalesce(score, 0) as score, who,
               {quality_counts.told_sql(LABEL)} + flags + {SLICED_MARK}::utinyint as marks, code_0
        from quality_scored
    """


def read_files(con: duckdb.DuckDBPyConnection) -> None:
    """The predictions of a block, from the files of the lake into the engine."""
    run(con, scored_sql())
    run(con, quality_counts.who_names_sql("answered"))
    run(con, quality_counts.part_names_sql("answered", [SLICE]))


def with_package(con: duckdb.DuckDBPyConnection) -> Found:
    """The package's way: all groups of a block at once."""
    count_groups(con, con.sql(flat_sql()).to_arrow_table(), 1, is_crossed=False)
    table = frame(con, all_counts_sql())
    counts, known = counts_of(table), Completeness.whole(len(table))
    values = {
        name: (metrics.daily_auc(counts, known) if name == "auc" else metrics.daily_ratio(name, counts, known)).value
        for name in NAMES
    }
    keys = zip(table["state"], table["version"], table["slice"], strict=True)
    return {key: {name: float(values[name][place]) for name in NAMES} for place, key in enumerate(keys)}


def all_counts_sql() -> str:
    """SQL of every group's counts."""
    return "select * from quality_counts"


def with_scikit_learn(days: list[pd.DataFrame]) -> Found:
    """The loop."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    found: Found = {}
    for day in days:
        for version, of_version in day.groupby("model_version"):
            for part, rows in [("all", of_version), *of_version.groupby("slice")]:
                y, p = rows["outcome"].to_numpy(), rows["score"].to_numpy()
                found[int(day["day"].iloc[0]), str(version), str(part)] = {
                    "brier": brier_score_loss(y, p), "log_loss": log_loss(y, p), "auc": roc_auc_score(y, p),
                    "calibration_ratio": y.sum() / p.sum(), "positive_share": y.mean(),
                }  # fmt: skip
    return found


def group_sizes(days: list[pd.DataFrame]) -> dict[tuple[int, str, str], int]:
    """Rows of every group."""
    every = pd.concat(days)
    of_slices = every.groupby(["day", "model_version", "slice"]).size()
    of_versions = every.groupby(["day", "model_version"]).size()
    sizes = {(int(day), str(version), str(part)): int(n) for (day, version, part), n in of_slices.items()}
    return sizes | {(int(day), str(version), "all"): int(n) for (day, version), n in of_versions.items()}


def compare(rows: int, days: int, folder: Path) -> Iterator[str]:
    """CPU seconds of both and the largest difference of each metric."""
    rng, spent = np.random.default_rng(0), {"files": 0.0, "package": 0.0, "loop": 0.0}
    worst: dict[str, float] = {}
    groups = 0
    with open_engine() as con:
        for first in [-1, *range(0, days, BLOCK)]:  # the first block is small: imports and first calls do not count
            is_warm = first >= 0
            numbers = range(first, min(first + BLOCK, days)) if is_warm else [0]
            block = [a_day(rng, day, rows // days if is_warm else 20_000) for day in numbers]
            lake = folder / f"{rows}-{first}"
            write_deltalake(lake, pd.concat(block).drop(columns="slice"))
            run(con, answered_sql([str(file) for file in lake.glob("*.parquet")]))
            started = time.process_time()
            read_files(con)
            read = time.process_time()
            found = with_package(con)
            counted = time.process_time()
            expected = with_scikit_learn(block)
            looped = time.process_time()
            if not is_warm:
                continue
            spent["files"] += read - started
            spent["package"] += counted - read
            spent["loop"] += looped - counted
            groups += len(expected)
            sizes = group_sizes(block)
            for key, values in expected.items():
                for metric in NAMES:
                    size = "large" if sizes[key] >= HISTOGRAM_FROM else "small"
                    name = f"auc of {size} groups" if metric == "auc" else metric
                    worst[name] = max(worst.get(name, 0.0), abs(found[key][metric] - values[metric]))
    yield f"{rows:,} rows, {groups} groups of about {rows * 2 / groups:,.0f} rows"
    whole = spent["package"] + spent["files"]
    yield f"  scikit-learn loop {spent['loop']:.2f} CPU s, package {spent['package']:.2f} CPU s: " + (
        f"{spent['loop'] / spent['package']:.1f}x less"
    )
    yield f"  package, reading the files of the lake included, {whole:.2f} CPU s: {spent['loop'] / whole:.1f}x less"
    yield "  largest difference: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items())


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlops-benchmark-") as name:
        for rows, days in ((asked.rows, DAYS), (9_000, 1)):
            for text in compare(rows, days, Path(name)):
                print(text, flush=True)


if __name__ == "__main__":
    main()
