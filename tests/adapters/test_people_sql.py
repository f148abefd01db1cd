"""A question locks files and settings for itself, and for nobody else in the process."""

from __future__ import annotations

from pathlib import Path

from toy_world import a_world

from mlops_assets.adapters.engine import open_engine
from mlops_assets.adapters.people_sql import ask


def test_after_a_question_the_process_can_still_read_its_files(tmp_path: Path) -> None:
    world = a_world(tmp_path / "home")
    (tmp_path / "file.csv").write_text("n\n1\n")
    assert ask([world.service], world.home, "select 1 as n").objects() == [{"n": 1}]
    with open_engine() as con:
        assert con.sql(f"select n from read_csv('{tmp_path}/file.csv')").fetchall() == [(1,)]
        con.execute("set threads = 2")
