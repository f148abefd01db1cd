"""A policy file has the names of the declaration; what it does not name stays, and a name that is wrong is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_stories import untrained
from toy_world import a_service

from mlops_assets import MLService
from mlops_assets.backtest.policy import with_policy
from mlops_assets.errors import DeclarationError, UnknownNameError


def changed(folder: Path, text: str, service: MLService | None = None, *, is_trained: bool = False) -> MLService:
    path = folder / "policy.yaml"
    path.write_text(text)
    return with_policy(service or a_service(), path, is_trained=is_trained)[0]


def test_a_file_changes_what_it_names_and_nothing_beside_it(tmp_path: Path):
    service = a_service()
    text = "drift: {min_distance: 0.2, alarm_budget: {tier2_a_quarter: 3}}\nmodel: {cadence: monthly}\n"

    found = changed(tmp_path, text)

    assert found.drift.min_distance == 0.2
    assert found.drift.alarm_budget.tier2_a_quarter == 3
    assert found.drift.alarm_budget.tier3_a_quarter == service.drift.alarm_budget.tier3_a_quarter
    assert found.drift.model_copy(
        update={"min_distance": service.drift.min_distance, "alarm_budget": service.drift.alarm_budget}
    ) == (service.drift)
    assert found.model.cadence == "monthly"
    assert found.model.gate == service.model.gate
    assert found.quality == service.quality


def test_what_changed_is_said_field_by_field(tmp_path: Path):
    path = tmp_path / "policy.yaml"
    path.write_text("drift: {min_distance: 0.2, baseline_days: 30}\n")

    _service, changes = with_policy(a_service(), path, is_trained=False)

    assert [(one.field, one.before, one.after) for one in changes] == [("drift.min_distance", "0.1", "0.2")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drfit: {min_distance: 0.2}", "no section of a policy is named 'drfit'. Did you mean 'drift'?"),
        ("drift: {min_distanse: 0.2}", "policy.yaml > drift: no field is named 'min_distanse'. Did you mean 'min_dist"),
        (
            "drift: {alarm_budget: {tier2_quarter: 3}}",
            "drift > alarm_budget: no field is named 'tier2_quarter'. Did you mean 'tier2_a",
        ),
        ("quality: {degradation: [{metrik: brier}]}", "no field is named 'metrik'. Did you mean 'metric'?"),
        ("drift: {critical_features: [wieght]}", "no feature is named 'wieght'. Did you mean 'weight'?"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_right_one(tmp_path: Path, text: str, message: str):
    with pytest.raises(UnknownNameError) as told:
        changed(tmp_path, text)

    assert message in str(told.value)


def test_a_value_that_cannot_be_is_refused_where_it_stands(tmp_path: Path):
    with pytest.raises(DeclarationError, match=r"policy.yaml > drift > baseline_days: .*greater than or equal to 12"):
        changed(tmp_path, "drift: {baseline_days: 3}")


def test_what_was_measured_cannot_be_judged_otherwise_without_measuring(tmp_path: Path):
    with pytest.raises(DeclarationError, match=r"quality > min_labels: changes what was measured.*replay --redo-from"):
        changed(tmp_path, "quality: {min_labels: 3}")
    with pytest.raises(DeclarationError, match=r"model > prior: .*Add --train"):
        changed(tmp_path, "model: {prior: 0.5}")

    assert changed(tmp_path, "model: {prior: 0.5}", untrained(), is_trained=True).model.prior == 0.5


def test_a_file_that_is_no_policy_is_one_sentence(tmp_path: Path):
    with pytest.raises(DeclarationError, match="is no mapping of sections to fields"):
        changed(tmp_path, "- drift")
    with pytest.raises(DeclarationError, match="No such file"):
        with_policy(a_service(), tmp_path / "none.yaml", is_trained=False)
