"""An old and a new meaning of a number, a class or a click stand side by side: how far they agree, and what a model is
worth under both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy_stories import stored
from toy_tasks import CLASSES, a_task_service, deliver_tasks
from toy_world import a_world, close, span

from mlops_assets.adapters.engine import frame, open_engine, put
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.comparing import comparison_page
from mlops_assets.feedback_loop.label_comparison import MEASURED, label_agreement_sql, label_quality_sql
from mlops_assets.monitoring_loop.metrics_multiclass import multiclass_metric
from mlops_assets.monitoring_loop.metrics_ranking import ranking_metric
from mlops_assets.monitoring_loop.metrics_regression import regression_metric
from mlops_assets.status import status_lines, status_of

ROWS = 300
NEW_VALUE = {
    "regression": "minutes + 4",
    "multiclass": "case when kind = 'tube' then 'pallet' when kind = 'box' and eur > 0 then 'letter' else kind end",
    "ranking": "clicked and eur > 12",
}
"""What the second definition reads instead, per task."""


def answers_and_outcomes(task: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions with scores that are often equal, and their outcomes under v1 and v2; the last one has only one."""
    rng = np.random.default_rng(11)
    chances = rng.dirichlet([2, 1, 1], ROWS)
    asked = pd.DataFrame({
        "request_id": [f"{n:03d}" for n in range(ROWS)], "model_version": "m", "score": rng.integers(1, 9, ROWS) / 10,
        "class_scores": list(chances), "context": [json.dumps({"page": f"p{n % 40}"}) for n in range(ROWS)],
    })  # fmt: skip
    old, new = {
        "regression": lambda: rng.normal(0.5, 1, (2, ROWS)),
        "multiclass": lambda: rng.integers(-1, len(CLASSES), (2, ROWS)).astype(float),
        "ranking": lambda: rng.integers(0, 4, (2, ROWS)).astype(float) * (rng.uniform(size=(2, ROWS)) < 0.2),
    }[task]()
    told = [
        asked[["request_id", "model_version", "score"]].assign(label_version=version, value=value)
        for version, value in (("v1", old), ("v2", new))
    ]
    return asked, pd.concat([told[0], told[1].iloc[:-1]], ignore_index=True)


def by_the_monitor(task: str, metric: str, asked: pd.DataFrame, value: np.ndarray) -> float:
    """The same number as quality has it."""
    days, score = np.ones(len(asked), dtype=np.int64), asked["score"].to_numpy()
    if task == "regression":
        return regression_metric(metric, score, value, days).value
    if task == "multiclass":
        return multiclass_metric(metric, np.stack(list(asked["class_scores"])), value.astype(np.int64), days).value
    gain = value if metric == "ndcg" else (value > 0).astype(float)
    return ranking_metric(metric, asked["context"].to_numpy(str), days, gain=gain, score=score, k=3).value


@pytest.mark.parametrize("task", NEW_VALUE)
def test_what_a_model_is_worth_under_both_definitions_is_what_quality_would_say(task: str) -> None:
    asked, told = answers_and_outcomes(task)
    with open_engine() as con:
        put(con, "told", told)
        put(con, "asked", asked)
        (row,) = frame(con, label_quality_sql(a_task_service(task), "told", "asked")).to_dict("records")
    assert (row["version"], row["other"], row["n"]) == ("v1", "v2", ROWS - 1)
    values: Any = told.pivot(index="request_id", columns="label_version", values="value").dropna()
    for version, prefix in (("v1", ""), ("v2", "other_")):
        for metric in MEASURED[a_task_service(task).task]:
            expected = by_the_monitor(task, metric, asked.iloc[:-1], values[version].to_numpy())
            assert row[prefix + metric] == pytest.approx(expected, abs=1e-9), metric


def test_two_definitions_of_a_number_agree_as_far_as_their_numbers_do() -> None:
    minutes = np.array([10.0, 20.0, 30.0, 40.0])
    told = pd.DataFrame({
        "request_id": [f"{n}" for n in range(4)] * 2, "label_version": ["v1"] * 4 + ["v2"] * 4,
        "value": np.append(minutes, minutes + [1.0, 2.0, 1.0, 8.0]), "known_at": pd.Timestamp("2024-03-01"),
    })  # fmt: skip
    with open_engine() as con:
        put(con, "told", told)
        (row,) = frame(con, label_agreement_sql("told", tolerance=2.0)).to_dict("records")
    assert (row["agreement"], row["mean_difference"], row["rate"], row["other_rate"]) == (0.75, 3.0, 25.0, 28.0)
    assert row["correlation"] == pytest.approx(np.corrcoef(minutes, told["value"][4:])[0, 1])


@pytest.mark.slow
@pytest.mark.parametrize("task", NEW_VALUE)
def test_the_page_and_people_s_sql_compare_the_definitions_of_every_task(task: str, tmp_path: Path) -> None:
    label = a_task_service(task).label.model_copy(update={"tolerance": 4.5} if task == "regression" else {})
    newer = label.model_copy(update={"version": "v2", "value": NEW_VALUE[task]})
    world = a_world(tmp_path, a_task_service(task, label=(label, newer)))
    deliver_tasks(world.home.landing, span(0, 5))
    close(world, span(0, 5))

    (compared,) = status_of(world)["label_definitions"]
    (model,) = compared["models"]
    assert model["model_version"] == "v7" and model["n"] > 100
    labels = stored(world, "labels").sort_values("known_at").groupby(["request_id", "label_version"])["value"].last()
    pairs: Any = labels.unstack().dropna()
    assert compared["n"] == len(pairs)
    if task == "regression":
        assert (compared["agreement"], round(compared["mean_difference"], 9)) == (1.0, 4.0)
    else:
        assert compared["agreement"] == pytest.approx((pairs["v1"] == pairs["v2"]).mean()) and compared["kappa"] < 1
    lines = [line.strip() for line in status_lines(status_of(world))]
    words = {"regression": "correlation 1.00", "multiclass": "rates letter ", "ranking": "kappa 0."}[task]
    assert any(words in line and "v1 beside v2: " in line for line in lines)
    first = MEASURED[world.service.task][0]
    assert any(
        line.startswith("v7: ") and f"{model[first]:.4f} and {model['other_' + first]:.4f}" in line for line in lines
    )
    assert f"| {model[first]:.4f} | {model['other_' + first]:.4f} |" in comparison_page([compared])
    query = f"select n, {first}, other_{first} from {world.name}.label_quality"
    ((n, mine, other),) = ask([world.service], world.home, query).rows
    assert n == model["n"] and (mine, other) == pytest.approx((model[first], model["other_" + first]))
