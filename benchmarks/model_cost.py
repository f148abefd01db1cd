"""What does a better model cost? Recipes side by side: Brier score and AUC of April-December, CPU seconds of a fit.

Trains each recipe at every month's end on the rows that were mature then, holds the candidate against the last
released one with the service's own gate, refits if it passes, and scores the next month's flights. Seeds are those
of the declaration. Reads a home replayed to 2013-12-31, writes nothing: python benchmarks/model_cost.py --only shipped
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from mlops_assets.adapters.engine import frame, literal, open_engine
from mlops_assets.adapters.home import Home
from mlops_assets.closing.acting import open_training_tables
from mlops_assets.closing.world import World
from mlops_assets.examples.flight_delays import models
from mlops_assets.model_loop.evaluation import auc, brier, compare
from mlops_assets.model_loop.gate import judge
from mlops_assets.model_loop.training import model_inputs, score
from mlops_assets.model_loop.training_set import build_training_set, read_training_rows
from mlops_assets.services import find_service

SCORED_FROM = date(2013, 4, 1)
BOOST = "sample__estimator__boost__"
EARLIER = {"learning_rate": 0.05, "max_iter": 120, "min_samples_leaf": 200, "l2_regularization": 5.0,
           "max_bins": 255, "early_stopping": True}  # fmt: skip
LBFGS = {"logistic__solver": "lbfgs", "logistic__tol": 1e-4, "logistic__max_iter": 300}
Factory = Callable[..., Any]


def boosted(share: float, **changed: Any) -> Factory:
    """The champion's recipe with another share of rows and other settings of the booster."""
    named = {"sample__max_samples": share} | {f"{BOOST}{name}": value for name, value in changed.items()}
    return lambda *asked: models.champion(*asked).set_params(**named)


RECIPES: dict[str, Factory] = {
    "shipped": models.champion,
    "all rows": boosted(1.0, min_samples_leaf=1000),
    "half of the rows": boosted(0.5, min_samples_leaf=500),
    "60 trees, rate .10": boosted(0.3, learning_rate=0.1, max_iter=60),
    "255 bins": boosted(0.3, max_bins=255),
    "120 trees, rate .05, all rows": boosted(1.0, **EARLIER),
    "fallback, shipped": models.fallback,
    "fallback, lbfgs": lambda *asked: models.fallback(*asked).set_params(**LBFGS),
}


@dataclass
class Line:
    """One recipe through the year: its released model, what that scored, what its last fit cost."""

    released: Any = None
    released_on: date = date.min
    releases: int = 0
    cpu_seconds: float = 0.0
    scores: list[Any] = field(default_factory=list)

    def train(self, world: World, factory: Factory, rows: pd.DataFrame, day: date) -> None:
        """Candidate, gate, and on PASS the refit on all rows."""
        judged = rows[rows["part"] == "judged"]
        if self.released:
            until = world.calendar.day_of(world.calendar.end_of(self.released_on) - world.service.label.window)
            judged = judged[judged["prediction_day"] > pd.Timestamp(until)]
        names, prior = world.service.feature_set.names, np.full(len(judged), world.service.model.prior)
        candidate = self._fitted(world, factory, rows[rows["part"] == "fit"])
        rival = score(self.released, judged, names) if self.released else prior
        scored = judged[["prediction_day", "value"]].assign(score=score(candidate, judged, names), rival_score=rival)
        verdict = judge(
            compare(scored, metrics=("brier",))[0], policy=world.service.model.gate,
            champion_age_days=(day - self.released_on).days, first_release=self.released is None,
        )  # fmt: skip
        if verdict.verdict == "PASS":
            self.released, self.released_on = self._fitted(world, factory, rows), day
            self.releases += 1

    def _fitted(self, world: World, factory: Factory, rows: pd.DataFrame) -> Any:
        features, started = world.service.feature_set, time.process_time()
        model = factory(features.names, features.categorical, world.service.model.champion.seed)
        model.fit(model_inputs(rows, features.names, features.categorical), rows["value"].astype("int64"))
        self.cpu_seconds = time.process_time() - started
        return model


def flights_sql(first: date, last: date, version: str) -> str:
    """SQL of the labelled flights of some days with their features; the newest label counts."""
    return f"""
        select f.*, l.value from features f join labels l using (request_id)
        where f.day between {literal(first)} and {literal(last)} and f.feature_version = {literal(version)}
        qualify row_number() over (partition by f.request_id order by l.known_at desc) = 1 and l.value is not null
    """


def months(world: World, con: duckdb.DuckDBPyConnection) -> Iterator[tuple[date, pd.DataFrame, pd.DataFrame]]:
    """Every month's end: the day, the rows to train on, and the flights of the month after."""
    model, features = world.service.model, world.service.feature_set
    ends = [date(2013, month, 1) - timedelta(days=1) for month in range(2, 13)]
    for day, last in zip(ends, [*ends[1:], date(2013, 12, 31)], strict=True):
        open_training_tables(world, con, day)
        build_training_set(
            con, features="features", labels="labels", label=world.service.label, instant=world.calendar.end_of(day),
            day=day, judged_days=model.gate.judged_days, window_days=model.training_window_days,
            feature_names=features.names, feature_version=features.version, into="training",
        )  # fmt: skip
        rows = read_training_rows(con, "training")
        open_training_tables(world, con, max(world.ledger.closings(world.name)))
        yield day, rows, frame(con, flights_sql(day + timedelta(days=1), last, features.version))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    world = World(find_service("flight_delays"), Home.from_environment())
    lines = {name: Line() for name in parser.parse_args().only}
    outcomes: list[Any] = []
    with threadpool_limits(limits=1), open_engine() as con:
        for day, rows, asked in months(world, con):
            is_scored = day + timedelta(days=1) >= SCORED_FROM
            outcomes += [asked["value"].to_numpy()] if is_scored else []
            for name, line in lines.items():
                line.train(world, RECIPES[name], rows, day)
                line.scores += [score(line.released, asked, world.service.feature_set.names)] if is_scored else []
    truth = np.concatenate(outcomes)
    print(f"{len(truth):,} labelled flights, April-December; the last fit has {len(rows):,} rows")
    print(f"{'recipe':<34}{'Brier':>8}{'AUC':>8}{'releases':>10}{'CPU s, last fit':>17}")
    for name, line in lines.items():
        said = np.concatenate(line.scores)
        found = f"{brier(truth, said):>8.4f}{auc(truth, said):>8.4f}"
        print(f"{name:<34}{found}{line.releases:>10}{line.cpu_seconds:>17.2f}")


if __name__ == "__main__":
    main()
