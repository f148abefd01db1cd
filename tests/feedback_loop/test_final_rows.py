"""However the log and its labels arrive, what is final is the same.

The mess is that of ``benchmarks/final_rows.py``, which does the same to the flights' year.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from final_rows import MEASURED, OUTCOME, Closed, Story, close_story, compared, messy
from toy_log import a_log_service, answers_of, truth_of
from toy_world import CALENDAR, FIRST, a_world, span

DAYS = span(0, 13)
PARTS = (DAYS[:7], DAYS[7:])
LABEL = a_log_service().label.model_copy(update={"window_hours": 96})
"""Labels come within 50 hours: two days are left in which they may be told in another order."""


def opposite(told: pd.DataFrame) -> pd.DataFrame:
    """Who paid did not, and the other way round."""
    return told.assign(defaulted=~told["defaulted"])


def closed(folder: Path, told: Story) -> Closed:
    """Two weeks, closed in two parts."""
    folder.mkdir()
    world = a_world(folder, a_log_service(label=LABEL))
    close_story(world, told, PARTS)
    return Closed.of(world)


@pytest.mark.slow
def test_repeats_corrections_and_a_reversed_order_change_no_final_row(tmp_path: Path) -> None:
    clean = Story(
        pd.concat([answers_of(day) for day in DAYS], ignore_index=True),
        pd.concat([truth_of(day).assign(answered_on=day) for day in DAYS], ignore_index=True),
    )
    mess = messy(clean, CALENDAR, LABEL.window, opposite, np.random.default_rng(1), rewritten=[DAYS[6]])
    right, found = closed(tmp_path / "clean", clean), closed(tmp_path / "messy", mess)
    for name, key in (("outcomes", OUTCOME), ("quality", MEASURED)):
        n, differs = compared(getattr(right, name), getattr(found, name), key)
        assert n > 100, name
        assert differs.empty, f"{name}:\n{differs.to_string()}"
    assert FIRST in set(right.outcomes["day"].dt.date)
    assert (right.repeats, right.by_row, right.by_file) == (0, 0, 0)
    assert found.repeats > 150 and found.by_row > 20 and found.by_file > 3
    assert right.conflicts == found.conflicts == right.blocked == found.blocked == 0
    assert len(compared(right.fresh, found.fresh, ["day", *MEASURED])[1]) > 100, "labels did come in another order"


def test_rows_differ_that_are_on_one_side_alone_or_say_something_else() -> None:
    one = pd.DataFrame({"key": ["a", "b", "c", "d"], "value": [1.0, np.nan, 0.3, np.nan]})
    other = pd.DataFrame({"key": ["e", "d", "c", "b", "a"], "value": [1.0, 0.0, 0.1 + 0.2, np.nan, 1.0]})
    n, differs = compared(one, other, ["key"])
    assert (n, sorted(differs["key"])) == (5, ["c", "d", "e"])
