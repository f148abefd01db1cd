"""How good were the answers? Brier score, AUC and log loss of what was served, per month of prediction.

Over matured predictions (state final or restated) as of the last closed day, read through the closed view of the
lake, as `mlops sql` does. Also: the share that got a label, and the share of scheduled flights with exactly one
served prediction (business days that are closed). The targets are about the whole year, so replay to its end first;
`tests/examples/test_year.py` holds a replay against them:

    mlops replay flight_delays --to 2014-01-02
    python benchmarks/model_quality.py
"""

import argparse
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, quote, rows
from mlops_assets.adapters.home import Home
from mlops_assets.adapters.people_sql import open_views
from mlops_assets.model_loop.evaluation import auc, brier, log_loss
from mlops_assets.services import find_service

SERVICE = "flight_delays"
APRIL_DECEMBER = ("2013-04", "2013-12")
ALL_MONTHS = ("2012-12", "2014-01")
PARTS = (("April-December", *APRIL_DECEMBER), ("all months", *ALL_MONTHS))
TARGETS = "targets, April-December: Brier at most 0.157, AUC at least 0.744; 97.2 % labelled; 100 % served once"


def served_sql(service: str) -> str:
    """SQL of every matured answer: month, score, and its label or null."""
    return f"""
        select strftime(day, '%Y-%m') as month, score, value from {quote(service)}.outcomes
        where served and state in ('final', 'restated')
    """


def served_once_sql(service: str) -> str:
    """SQL of (scheduled flights of closed days, of which with exactly one served prediction).

    A flight is scheduled for the New York date in its id; of a timetable delivered twice the newest row counts.
    """
    name = quote(service)
    return f"""
        with scheduled as (
            select request_id from sources.schedule
            where flight_date <= (select max(day) from {name}.closings)
            qualify row_number() over (partition by day, source_key order by generation desc) = 1 and not withdrawn
        ), answers as (select request_id, count(*) as n from {name}.predictions where served group by request_id)
        select count(*), count(*) filter (n = 1) from scheduled left join answers using (request_id)
    """


@dataclass(frozen=True)
class Quality:
    """How good some matured answers were: how many, the share with a label, and three metrics of those."""

    predictions: int
    labelled: float
    brier: float
    auc: float
    log_loss: float

    @classmethod
    def of(cls, answers: pd.DataFrame, first: str, last: str) -> "Quality":
        """Of the rows of ``served_sql`` from one month to another, both included."""
        asked = answers[(answers["month"] >= first) & (answers["month"] <= last)]
        labelled = asked[asked["value"].notna()]
        outcomes, scores = (labelled[column].to_numpy(dtype=np.float64) for column in ("value", "score"))
        share = len(labelled) / max(len(asked), 1)
        return cls(len(asked), share, brier(outcomes, scores), auc(outcomes, scores), log_loss(outcomes, scores))


def quality_lines(con: duckdb.DuckDBPyConnection, service: str) -> Iterator[str]:
    """One line per month, then April-December and everything."""
    answers = frame(con, served_sql(service))
    months = [(month, month, month) for month in sorted(answers["month"].unique())]
    yield f"{'month':<15}{'predictions':>12}{'labelled':>10}{'Brier':>9}{'AUC':>9}{'log loss':>10}"
    for name, first, last in (*months, *PARTS):
        found = Quality.of(answers, first, last)
        numbers = f"{found.brier:>9.4f}{found.auc:>9.4f}{found.log_loss:>10.4f}"
        yield f"{name:<15}{found.predictions:>12,}{found.labelled:>10.2%}{numbers}"


def main() -> None:
    """Print the tables and what this cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    started = time.process_time()
    with open_views([find_service(SERVICE)], Home.from_environment(), is_open=False) as con:
        ((last,),) = rows(con, f"select max(day) from {quote(SERVICE)}.closings")
        if last is None:
            raise SystemExit("no day is closed yet; run `make run` first")
        print(f"{SERVICE}, as served, as known at the end of {last}")
        for line in quality_lines(con, SERVICE):
            print(line)
        ((flights, once),) = rows(con, served_once_sql(SERVICE))
    print(f"scheduled flights up to {last}: {flights:,}, with exactly one served prediction: {once / flights:.4%}")
    print(TARGETS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"took {time.process_time() - started:.1f} CPU s, peak memory {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
