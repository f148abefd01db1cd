"""A process that ends at any numbered step of the commit protocol, started again, leaves no trace of it."""

from pathlib import Path

import pytest
from crashing import run
from states import assert_same
from toy_world import a_world, close, deliver_all, span

from mlops_assets.closing.commit import LOOP_TABLES
from mlops_assets.closing.world import World

pytestmark = pytest.mark.slow

LAST = 16
POINTS = (
    "after-source-tables",
    "after-step-features",
    "before-commit",
    *(f"after-{name}" for name in LOOP_TABLES),
    "after-generations",
    "inside-transaction",
    "after-closing",
    "after-intended",
    "after-training-tables",
    "after-release-rows",
    "before-done",
    "after-done",
)


@pytest.fixture(scope="module")
def untroubled(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = a_world(tmp_path_factory.mktemp("untroubled"))
    deliver_all(world.home.landing, span(0, LAST))
    close(world, span(0, LAST))
    return world


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_this_step_is_forgotten_after_a_restart(point: str, untroubled: World, tmp_path: Path) -> None:
    deliver_all(tmp_path / "landing", span(0, LAST))
    assert run(tmp_path, LAST, f"{point}:2") == 137, f"nothing passes '{point}' twice"
    assert run(tmp_path, LAST) == 0
    restarted = a_world(tmp_path)
    assert_same(untroubled, restarted)
    versions = [row["mlflow_version"] for row in restarted.ledger.rows("releases", restarted.name)]
    assert len(versions) == len(set(versions)) == len(untroubled.ledger.rows("releases", untroubled.name))
