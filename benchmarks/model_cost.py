"""What does a better model cost? Recipes side by side: Brier score and AUC of the months asked for, CPU of a fit.

Trains each recipe at every month's end on the rows that were mature then, holds the candidate against the last
released one with the service's own gate, refits if it passes, and scores the next month's flights. A recipe is a
factory, the most rows that it learns from, and features that it does not see. Seeds are those of the declaration.
Reads a home replayed to the end of the last month, writes nothing:

    python benchmarks/model_cost.py --first 2013-02 --last 2013-03   # the months that the recipe was chosen on
    python benchmarks/model_cost.py --only shipped                   # April-December
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from mlops_assets.adapters.engine import frame, literal, open_engine
from mlops_assets.adapters.home import Home
from mlops_assets.closing.acting import open_training_tables
from mlops_assets.closing.world import World
from mlops_assets.examples.flight_delays import models
from mlops_assets.examples.flight_delays.service import MAX_ROWS
from mlops_assets.model_loop.evaluation import auc, brier, compare
from mlops_assets.model_loop.gate import judge
from mlops_assets.model_loop.training import model_inputs, score
from mlops_assets.model_loop.training_set import build_training_set, read_training_rows
from mlops_assets.services import find_service

BOOST = "boost__"
EARLIER = {"learning_rate": 0.05, "max_iter": 120, "min_samples_leaf": 200, "l2_regularization": 5.0,
           "max_bins": 255, "early_stopping": True}  # fmt: skip
LBFGS = {"logistic__solver": "lbfgs", "logistic__tol": 1e-4, "logistic__max_iter": 300}
Factory = Callable[..., Any]


def boosted(**changed: Any) -> Factory:
    """The champion's recipe with other settings of the booster."""
    return lambda *asked: models.champion(*asked).set_params(**{f"{BOOST}{k}": v for k, v in changed.items()})


def calibrated(method: str, folds: int) -> Factory:
    """The champion's recipe, its scores put right by what it says out of fold: blocks of rows in order of request id.

    Source: J. Platt (1999) for sigmoid, B. Zadrozny and C. Elkan, KDD 2002, for isotonic.
    """
    return lambda *asked: CalibratedClassifierCV(
        models.champion(*asked), method=method, cv=KFold(folds), ensemble=False
    )


@dataclass(frozen=True)
class Recipe:
    """A factory, the most rows that it learns from (0: all), and the features (by prefix) that it does not see."""

    factory: Factory = models.champion
    max_rows: int = MAX_ROWS
    without: tuple[str, ...] = ()

    def sees(self, names: Sequence[str]) -> tuple[str, ...]:
        """The features that are left."""
        return tuple(name for name in names if not name.startswith(self.without or ("-",)))

    def drawn(self, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
        """The rows that it learns from, by the lot of ``read_training_rows``."""
        lots = [hashlib.md5(f"{seed}:{name}".encode()).hexdigest() for name in rows["request_id"]]
        return rows.iloc[np.sort(np.argsort(lots, kind="stable")[: self.max_rows or None])]


RECIPES: dict[str, Recipe] = {
    "shipped": Recipe(),
    "30,000 rows": Recipe(max_rows=30_000),
    "120,000 rows": Recipe(max_rows=120_000),
    "all rows": Recipe(max_rows=0),
    "60 trees, rate .10": Recipe(boosted(learning_rate=0.1, max_iter=60)),
    "120 trees, rate .05, all rows": Recipe(boosted(**EARLIER), max_rows=0),
    "sigmoid, 5 folds": Recipe(calibrated("sigmoid", 5)),
    "isotonic, 5 folds": Recipe(calibrated("isotonic", 5)),
    "without the flight's record": Recipe(without=("late_rate_flight",)),
    "without arrival delays": Recipe(without=("arrival_delay",)),
    "without plane": Recipe(without=("plane_",)),
    "without routes": Recipe(without=("late_rate_route",)),
    "without what was added in February": Recipe(
        without=("late_rate_flight", "arrival_delay", "plane_seats", "visibility_mean", "departures_")
    ),
    "fallback, shipped": Recipe(models.fallback),
    "fallback, lbfgs": Recipe(lambda *asked: models.fallback(*asked).set_params(**LBFGS)),
}


@dataclass
class Line:
    """One recipe through the year: its released model, what that scored, what its last fit cost."""

    released: Any = None
    released_on: date = date.min
    releases: int = 0
    cpu_seconds: float = 0.0
    scores: list[Any] = field(default_factory=list)

    def train(self, world: World, recipe: Recipe, rows: pd.DataFrame, day: date) -> None:
        """Candidate, gate, and on PASS the refit on all rows."""
        judged = rows[rows["part"] == "judged"]
        if self.released:
            until = world.calendar.day_of(world.calendar.end_of(self.released_on) - world.service.label.window)
            judged = judged[judged["prediction_day"] > pd.Timestamp(until)]
        names = recipe.sees(world.service.feature_set.names)
        prior = np.full(len(judged), world.service.model.prior)
        candidate = self._fitted(world, recipe, rows[rows["part"] == "fit"])
        rival = score(self.released, judged, names) if self.released else prior
        scored = judged[["prediction_day", "value"]].assign(score=score(candidate, judged, names), rival_score=rival)
        verdict = judge(
            compare(scored, metrics=("brier",))[0], policy=world.service.model.gate,
            champion_age_days=(day - self.released_on).days, first_release=self.released is None,
        )  # fmt: skip
        if verdict.verdict == "PASS":
            self.released, self.released_on = self._fitted(world, recipe, rows), day
            self.releases += 1

    def _fitted(self, world: World, recipe: Recipe, rows: pd.DataFrame) -> Any:
        features, seed = world.service.feature_set, world.service.model.champion.seed
        drawn, names = recipe.drawn(rows, seed), recipe.sees(features.names)
        categorical = [name for name in features.categorical if name in names]
        started = time.process_time()
        model = recipe.factory(names, categorical, seed)
        model.fit(model_inputs(drawn, names, categorical), drawn["value"].astype("int64"))
        self.cpu_seconds = time.process_time() - started
        return model


def flights_sql(first: date, last: date, version: str) -> str:
    """SQL of the labelled flights of some days with their features; the newest label counts."""
    return f"""
        select f.*, l.value from features f join labels l using (request_id)
        where f.day between {literal(first)} and {literal(last)} and f.feature_version = {literal(version)}
        qualify row_number() over (partition by f.request_id order by l.known_at desc) = 1 and l.value is not null
    """


def months(
    world: World, con: duckdb.DuckDBPyConnection, until: date
) -> Iterator[tuple[date, pd.DataFrame, pd.DataFrame]]:
    """Every month's end before ``until``: the day, the rows to train on, and the flights of the month after."""
    model, features = world.service.model, world.service.feature_set
    ends = [date(2013, month, 1) - timedelta(days=1) for month in range(2, 13)]
    for day, last in zip(ends, [*ends[1:], date(2013, 12, 31)], strict=True):
        if day >= until:
            break
        open_training_tables(world, con, day)
        build_training_set(
            con, features="features", labels="labels", label=world.service.label, instant=world.calendar.end_of(day),
            day=day, judged_days=model.gate.judged_days, window_days=model.training_window_days,
            feature_names=features.names, feature_version=features.version, into="training",
        )  # fmt: skip
        rows = read_training_rows(con, "training")
        open_training_tables(world, con, max(world.ledger.closings(world.name)))
        yield day, rows, frame(con, flights_sql(day + timedelta(days=1), last, features.version))


def month(text: str) -> date:
    """The first day of a month that is written 2013-04."""
    return date.fromisoformat(f"{text}-01")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--first", type=month, default=date(2013, 4, 1), help="first month scored (default: 2013-04)")
    parser.add_argument("--last", type=month, default=date(2013, 12, 1), help="last month scored (default: 2013-12)")
    given = parser.parse_args()
    world = World(find_service("flight_delays"), Home.from_environment())
    lines = {name: Line() for name in given.only}
    outcomes: list[Any] = []
    with threadpool_limits(limits=1), open_engine() as con:
        for day, rows, asked in months(world, con, given.last):
            is_scored = day + timedelta(days=1) >= given.first
            outcomes += [asked["value"].to_numpy()] if is_scored else []
            for name, line in lines.items():
                line.train(world, RECIPES[name], rows, day)
                names = RECIPES[name].sees(world.service.feature_set.names)
                line.scores += [score(line.released, asked, names)] if is_scored else []
    truth = np.concatenate(outcomes)
    print(f"{len(truth):,} labelled flights, {given.first:%Y-%m} to {given.last:%Y-%m}; the last fit has {len(rows):,}")
    print(f"{'recipe':<38}{'Brier':>8}{'AUC':>8}{'releases':>10}{'CPU s, last fit':>17}")
    for name, line in lines.items():
        said = np.concatenate(line.scores)
        found = f"{brier(truth, said):>8.4f}{auc(truth, said):>8.4f}"
        print(f"{name:<38}{found}{line.releases:>10}{line.cpu_seconds:>17.2f}")


if __name__ == "__main__":
    main()
