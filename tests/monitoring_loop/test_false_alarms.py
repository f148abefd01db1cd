"""A rule that sounds strict may still speak up on noise alone; whoever declares it is told how often."""

from __future__ import annotations

import pytest

from mlops_assets import DegradationRule
from mlops_assets.monitoring_loop.false_alarms import Noise, false_alarms_a_quarter, in_words, noise_of

THREE_PER_CENT = DegradationRule(
    metric="revenue", drops_by_share=0.03, compared_with="fallback", broken_days=3, of_days=3
)


def test_three_per_cent_for_three_days_fires_more_than_once_a_quarter_on_ordinary_noise():
    """Three independent days beyond the limit, and a first one: p ** 3 * (1 - p) * 91 with p = .274 and .382."""
    assert false_alarms_a_quarter(THREE_PER_CENT, Noise(0.0, 0.05)) == pytest.approx(1.36, abs=0.1)
    assert false_alarms_a_quarter(THREE_PER_CENT, Noise(0.0, 0.10)) == pytest.approx(3.13, abs=0.1)


def test_a_champion_that_is_usually_better_rarely_breaks_it():
    assert false_alarms_a_quarter(THREE_PER_CENT, Noise(0.08, 0.05)) < 0.05


def test_days_that_resemble_each_other_come_in_runs():
    """Correlated days stay beyond a limit together, so three in a row are easier."""
    alone = false_alarms_a_quarter(THREE_PER_CENT, Noise(0.05, 0.05))
    assert false_alarms_a_quarter(THREE_PER_CENT, Noise(0.05, 0.05, lag1=0.8)) > 3 * alone


def test_noise_is_measured_from_a_month_of_days_on():
    assert noise_of([0.1, -0.1] * 13) is None
    measured = noise_of([0.1, 0.1, -0.1, -0.1] * 10)
    assert measured is not None and (measured.centre, measured.spread, measured.days) == (0.0, 0.1, 40)


def test_the_words_say_whether_the_noise_was_measured():
    assert "1.3 to 3.1 false alarms a quarter (simulated: assumed" in in_words(THREE_PER_CENT, None)
    assert "40 measured days" in in_words(THREE_PER_CENT, Noise(0.0, 0.05, 0.0, 40))
    level = DegradationRule(metric="auc", below=0.6)
    assert in_words(level, None) == "false alarms not known before 28 days are measured"
