"""Three verdicts: surely good enough, surely worse, and more days are needed."""

from dataclasses import replace

import pytest

from mlops_assets.model_loop.evaluation import Comparison
from mlops_assets.model_loop.gate import GateVerdict, judge, needed_days
from mlops_assets.service.training import GatePolicy

POLICY = GatePolicy()
A_COMPARISON = Comparison(
    metric="brier", slice="all", value=0.1500, rival_value=0.1500, difference=0.0, low=-0.001, high=0.001,
    days=14, n=12_000, day_sd=0.0017, correlation=0.0, standard_error=0.00046,
)  # fmt: skip


def verdict(low: float, high: float, *, age_days: int | None = 30, first: bool = False) -> GateVerdict:
    measured = replace(A_COMPARISON, difference=(low + high) / 2, low=low, high=high)
    return judge(measured, policy=POLICY, champion_age_days=age_days, unopposed="the first release" if first else None)


@pytest.mark.parametrize(
    ("low", "high", "age_days", "expected", "why"),
    [
        (-0.0010, 0.0014, 30, "PASS", "no worse than the margin allows, and the champion is 30 days old"),
        (-0.0010, 0.0015, 25, "PASS", "no worse than the margin allows, and the champion is 25 days old"),
        (-0.0020, -0.0001, 3, "PASS", "better for sure"),
        (0.0016, 0.0030, 30, "FAIL", "worse than the margin allows, for sure"),
        (
            -0.0010, 0.0014, 24, "INCONCLUSIVE",
            "no worse, but not better for sure either, and the champion is 24 days old; from 25 days on that is enough",
        ),
    ],
)  # fmt: skip
def test_a_verdict_follows_both_bounds_and_the_age_of_the_champion(low, high, age_days, expected, why):
    given = verdict(low, high, age_days=age_days)

    assert (given.verdict, given.reasons[-1]) == (expected, why)


def test_too_few_days_are_named_with_what_they_could_see():
    wide = replace(A_COMPARISON, low=-0.0020, high=0.0020, standard_error=0.00093)
    given = judge(wide, policy=POLICY, champion_age_days=30, unopposed=None)

    assert given.text == (
        "INCONCLUSIVE: brier 0.1500 against 0.1500 on 12000 rows of 14 days: difference +0.00000 "
        "[-0.00200, +0.00200], margin 0.00150; could be worse than the margin: 14 days can see a margin of 0.00261 "
        "(80 % power), not 0.00150; that takes about 43 days."
    )
    assert given.numbers["needed_days"] == 43


@pytest.mark.parametrize(("low", "high", "expected"), [(-0.02, -0.01, "PASS"), (-0.0005, 0.0012, "INCONCLUSIVE")])
def test_a_first_release_must_beat_the_prior(low, high, expected):
    assert verdict(low, high, age_days=None, first=True).verdict == expected


def test_a_candidate_without_a_rival_says_why_there_is_none():
    better = replace(A_COMPARISON, difference=-0.015, low=-0.02, high=-0.01)
    given = judge(better, policy=POLICY, champion_age_days=None, unopposed="v1 reads a column that is gone")
    assert given.reasons[-1] == "better than the prior, and v1 reads a column that is gone"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": 199}, "199 judged labels, below min_labels=200"),
        ({"days": 2}, "2 judged days; three are the least that say anything"),
        ({"value": None}, "nothing could be compared"),
    ],
)
def test_what_cannot_be_measured_is_inconclusive(change, why):
    given = judge(replace(A_COMPARISON, **change), policy=POLICY, champion_age_days=30, unopposed=None)

    assert (given.verdict, given.reasons) == ("INCONCLUSIVE", (why,))


def test_half_the_margin_takes_four_times_the_days():
    assert needed_days(0.003, 0.0015) == 32
    assert needed_days(0.003, 0.00075) == 126
