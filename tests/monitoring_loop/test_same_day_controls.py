"""A log has more than one version or arm: what was served is held against another one's answers of the same day."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from toy_log import a_log, a_log_service, answers_of, deliver_log
from toy_stories import stored
from toy_world import a_world, close, deliver, span

from mlops_assets import DeclarationError, DegradationRule, MLService, QualityPolicy
from mlops_assets.promises import warnings

DAYS = span(0, 13)
BROKEN_FROM = 7
ON_A_DAY = {"metric": "brier", "rises_by": 0.06, "broken_days": 2, "of_days": 2, "min_labels": 10}
SHADOW = DegradationRule(**ON_A_DAY, compared_with="shadow")
VERSION = DegradationRule(**ON_A_DAY, compared_with="version:v8")
ARM = DegradationRule(**ON_A_DAY, compared_with="served", slice="arm=b", control_slice="arm=a")


def watching(*rules: DegradationRule) -> MLService:
    return a_log_service(quality=QualityPolicy(min_labels=5, degradation=rules))


@pytest.mark.slow
def test_an_arm_that_breaks_is_seen_beside_the_shadow_the_other_version_and_the_other_arm(tmp_path: Path) -> None:
    """From one day on arm b of the champion answers with the opposite; the shadow and arm a go on as they were."""
    world = a_world(tmp_path, watching(SHADOW, VERSION, ARM))
    deliver_log(world.home.landing, DAYS)
    for day in DAYS[BROKEN_FROM:]:
        rows = answers_of(day)
        is_theirs = (rows["arm"] == "b") & (rows["role"] == "champion")
        deliver(
            world.home.landing, "answers", day, rows.assign(score=rows["score"].where(~is_theirs, 1 - rows["score"]))
        )
    close(world, DAYS)
    rules, quality = stored(world, "rules"), stored(world, "quality")
    rules = rules[rules["day"] == DAYS[-1]].set_index("rule")
    last = rules["prediction_day"].dt.date.iloc[0]
    assert last >= DAYS[BROKEN_FROM] + timedelta(days=2)
    mine = quality[(quality["prediction_day"].dt.date == last) & (quality["metric"] == "brier")]
    mine = mine[(mine["window_days"] == 1) & (mine["state"] == "final")]
    for rule, where in (
        (SHADOW, "role == 'shadow' and slice == 'all'"),
        (VERSION, "version == 'v8' and slice == 'all'"),
        (ARM, "role == 'served' and slice == 'arm=a'"),
    ):
        found = rules.loc[rule.sentence]
        assert (found["state"], found["tier"]) == ("broken", "moderate")
        assert found["compared"] == mine.query(where)["value"].iloc[0]
    assert rules.loc[ARM.sentence, "value"] > 0.3 > rules.loc[ARM.sentence, "compared"]
    before = stored(world, "rules")
    before = before[before["prediction_day"].dt.date < DAYS[BROKEN_FROM]]
    assert "broken" not in set(before[before["rule"] == ARM.sentence]["state"])
    unknown = DegradationRule(**ON_A_DAY, compared_with="version:v9")
    named = [line for line in warnings(a_world(tmp_path, watching(SHADOW, unknown))) if "answered nothing" in line]
    assert named == [f"rule '{unknown.sentence}': version v9 answered nothing in the newest 28 closed days"]


def test_a_control_that_cannot_answer_fails_with_the_service() -> None:
    with pytest.raises(DeclarationError, match="the log says of no answer that its role is 'shadow'"):
        a_log_service(quality=QualityPolicy(degradation=(SHADOW,)), prediction_log=a_log(role="'champion'"))
    with pytest.raises(DeclarationError, match="'arm'"):
        watching(ARM.model_copy(update={"control_slice": "arn=a"}))
