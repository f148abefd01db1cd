"""A declaration that cannot be is refused in one sentence: where, what, and how to put it right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from toy_log import a_log, a_log_service
from toy_world import a_service, a_world

from mlops_assets import DeclarationError, DegradationRule, LabelDefinition, QualityPolicy, UnknownNameError
from mlops_assets.promises import rules, warnings
from mlops_assets.services import load_service

DECLARED = """
from toy_log import a_log, a_log_service
from mlops_assets import LabelDefinition, QualityPolicy
service = {}
"""


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, declaration: str) -> str:
    """What is said about a module of a user with this declaration."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "declared_wrong", raising=False)
    (folder / "declared_wrong.py").write_text(DECLARED.format(declaration))
    with pytest.raises(DeclarationError) as refused:
        load_service("declared_wrong:service")
    return str(refused.value)


def test_a_misspelt_field_is_told_with_the_one_that_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = told(tmp_path, monkeypatch, 'a_log_service(prediction_log=a_log(latency="latency_ms"))')
    assert words.startswith(
        "MLOPS_SERVICES > declared_wrong:service > PredictionLog > latency: no field is named 'latency'. Did you mean "
        "'latency_ms'? Declared: categorical, class_scores, "
    )
    assert "Did you mean 'label'?" in told(tmp_path, monkeypatch, "a_log_service(lable=1)")


def test_a_value_that_cannot_be_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(tmp_path, monkeypatch, 'a_log_service(quality=QualityPolicy(windows_days=(1, "x"), min_labels=0))') == (
        "MLOPS_SERVICES > declared_wrong:service > QualityPolicy > windows_days[1]: Input should be a valid integer, "
        "unable to parse string as an integer, and it is 'x'. 1 more field(s) are wrong. Correct the field."
    )
    assert told(tmp_path, monkeypatch, "a_log_service(quality=QualityPolicy(windows_days=(7, 1)))") == (
        "MLOPS_SERVICES > declared_wrong:service > QualityPolicy > windows_days: windows_days (7, 1): name lengths of "
        "1 day and more, each once, the shortest first."
    )


@pytest.mark.parametrize("windows", [(), (0,), (1, 1, 7), (7, 1)])
def test_windows_are_lengths_in_order(windows: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="name lengths of 1 day and more, each once"):
        QualityPolicy(windows_days=windows)


def test_a_core_metric_is_one_that_is_measured() -> None:
    with pytest.raises(UnknownNameError) as refused:
        a_log_service(quality=QualityPolicy(core_metrics=("brire",)))
    assert str(refused.value).startswith(
        "service 'loans' > quality > core_metrics: no binary metric is named 'brire'. Did you mean 'brier'? Declared: "
    )
    with pytest.raises(UnknownNameError, match="core_metrics: no binary metric is named 'auc'"):
        a_log_service(quality=QualityPolicy(metrics=("brier",), core_metrics=("auc",)))


def test_more_than_three_core_metrics_are_allowed_and_warned_about(tmp_path: Path) -> None:
    metrics = ("brier", "auc", "calibration_ratio", "log_loss")
    words = "4 core metrics: with more than 3 nobody looks at any; keep the ones that a decision hangs on"
    assert words in warnings(a_world(tmp_path, a_log_service(quality=QualityPolicy(core_metrics=metrics))))
    three = a_world(tmp_path, a_log_service(quality=QualityPolicy(core_metrics=metrics[:3])))
    assert not [warning for warning in warnings(three) if "core metrics" in warning]


def test_a_check_prints_how_often_each_sentence_would_be_wrong(tmp_path: Path) -> None:
    sentence = DegradationRule(
        metric="brier", rises_by_share=0.03, compared_with="same_weekday", broken_days=3, of_days=3
    )
    world = a_world(tmp_path, a_log_service(quality=QualityPolicy(degradation=(sentence,))))
    ((what, words),) = list(rules(world))
    assert what == "rule" and words.startswith(f"{sentence.sentence} -> incident (moderate); ")
    assert "false alarms a quarter (simulated" in words


def test_labels_that_depend_on_a_decision_need_one() -> None:
    label: LabelDefinition = a_log_service().label.model_copy(update={"needs_decision": True})
    with pytest.raises(DeclarationError) as refused:
        a_log_service(label=label)
    assert str(refused.value) == (
        "service 'loans' > label > needs_decision: label 'default_v1' depends on our decision, and "
        "prediction_log.decision does not say what was decided. Declare prediction_log.decision, or leave "
        "needs_decision out."
    )
    decided = a_log(decision="score >= 0.5")
    assert a_log_service(label=label, prediction_log=decided).label.needs_decision
    with pytest.raises(DeclarationError, match="model.threshold does not say what was decided"):
        a_service(label=a_service().label.model_copy(update={"needs_decision": True}))


def test_an_entity_that_no_attribution_reads_is_refused() -> None:
    fields: dict[str, Any] = a_log_service().label.model_dump()
    with pytest.raises(ValueError, match="entity and request_entity are read by attribution 'first', 'last' and"):
        LabelDefinition(**{**fields, "request_entity": "customer"})


def test_a_feature_is_not_called_like_a_column_of_ours() -> None:
    with pytest.raises(DeclarationError) as refused:
        a_log_service(prediction_log=a_log(features={"day": "income"}))
    assert str(refused.value) == (
        "service 'loans' > features: 'day' is a column that every feature row has. Give it another name."
    )
