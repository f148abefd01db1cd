"""What another policy would have done: the real judging functions over what is stored, and nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pandas as pd
import pytest
from toy_log import twenty_days
from toy_stories import stored, untrained
from toy_world import a_world, close, deliver, deliver_all, scans_file, span

from mlops_assets.backtest.replaying import Judged, closed_range, judge_again
from mlops_assets.backtest.result import counts_of
from mlops_assets.backtest.run import Asked, backtest
from mlops_assets.backtest.words import as_object, lines
from mlops_assets.closing.world import World
from mlops_assets.errors import RangeError

pytestmark = pytest.mark.slow
DAYS = span(0, 20)
DECIDED = ("decision_id", "kind", "subject", "because", "evidence")


@contextmanager
def silent(_what: str, _total: int) -> Iterator[object]:
    yield lambda done: None


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder by its content; the ledger's shared memory belongs to whoever has it open."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith("-shm"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three weeks of parcels that nobody trains on: scans without a delay on one day, no orders for another."""
    found = a_world(tmp_path_factory.mktemp("backtest"), untrained())
    deliver_all(found.home.landing, DAYS, without=[("orders", DAYS[16])])
    late = scans_file(DAYS[14])
    deliver(found.home.landing, "scans", DAYS[14], late.assign(delay_min=late["delay_min"] * 40))
    close(found, DAYS, block_days=21)
    return found


@pytest.fixture(scope="module")
def again(world: World) -> Judged:
    return judge_again(world, world.service, DAYS, lambda done: None)


def test_under_the_declared_policy_history_repeats_itself(world: World, again: Judged):
    """Judged block by block from stored rows: the same findings, verdicts and decisions as at the closings."""
    verdicts = stored(world, "verdicts").sort_values("day")
    assert [one.verdict["verdict"] for one in again.judgements] == list(verdicts["verdict"])
    assert [one.verdict["reason"] for one in again.judgements] == list(verdicts["reason"])
    assert {"quiet", "investigate"} <= set(verdicts["verdict"])

    written = world.ledger.effective("decisions", world.name)
    decided = [row for one in again.judgements for row in one.decisions]
    assert sorted(row["decision_id"] for row in decided) == sorted(row["decision_id"] for row in written)
    by_id = {row["decision_id"]: row for row in written}
    assert all(row[name] == by_id[row["decision_id"]][name] for row in decided for name in DECIDED)

    for name, found in (("drift", again.drift), ("rules", again.rules)):
        before = stored(world, name)
        columns = list(before.columns)
        now = found[columns].assign(day=found["day"].dt.date)
        keys = ["day", "column_name", "statistic", "baseline"] if name == "drift" else ["day", "rule", "leads_to"]
        texts = {column: "str" for column in columns if before[column].dtype == "str"}
        one, other = (x.astype(texts).sort_values(keys, ignore_index=True) for x in (before, now))
        pd.testing.assert_frame_equal(one, other, check_dtype=False, obj=name)


def test_a_backtest_changes_nothing_in_the_home(world: World, tmp_path: Path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("model: {cadence: weekly}\ndrift: {learning_z: 50}\nincidents: {minutes_each: 30}\n")
    before, rows = fingerprint(world.home.path), world.ledger.rows("decisions", world.name)

    found = backtest(world, Asked(policy, dates=1), silent)

    assert fingerprint(world.home.path) == before
    assert world.ledger.rows("decisions", world.name) == rows
    assert list(tmp_path.iterdir()) == [policy]
    assert found.declared.counts.retrainings == ()
    sundays = [day for day in DAYS if day.isoweekday() == 7]
    assert [day for day, _ in found.proposed.counts.retrainings] == sundays
    assert all(because.startswith("cadence: weekly") for _day, because in found.proposed.counts.retrainings)
    assert found.proposed.counts.cost_minutes == 30 * found.proposed.counts.incidents
    assert found.declared.counts.cost_minutes is None
    assert found.proposed.counts.drift_alarms < found.declared.counts.drift_alarms
    told = "\n".join(lines(found))
    assert "nothing was changed" in told and "injected faults seen within 7 days" in told
    assert "not known without training: --train does it" in told
    assert as_object(found)["changes"][0] == {"field": "model.cadence", "before": "never", "after": "weekly"}


POLICIES = {
    "drift": "drift: {min_mean_shift_stds: 0.3}",
    "quality": "quality: {degradation: [{metric: brier, above: 0.01, broken_days: 1, of_days: 1, min_labels: 5}]}",
    "model": "model: {cadence: weekly}",
}
PRINTED = (
    "drift alarms", "alarms of rules over quality", "incidents opened", "retrainings  ", "quality as realised",
    "cost of trainings", "cost of incidents", "what the monitor cannot see", "  weight  ", "  rows  ",
)  # fmt: skip


@pytest.mark.parametrize("sort", POLICIES)
def test_a_policy_of_each_sort_is_answered_with_everything(world: World, tmp_path: Path, sort: str):
    """Detection of injected faults is printed beside it as well; it is what takes the time (see above)."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICIES[sort])
    found = backtest(world, Asked(policy, first=DAYS[10], dates=0), silent)
    told = "\n".join(lines(found))
    assert found.changes[0].field.startswith(sort)
    assert [words for words in PRINTED if words not in told] == []


def test_a_range_begins_with_nothing_open(world: World):
    """The incidents of the days before belong to the policy that was in force; nobody has answered them since."""
    judged = judge_again(world, world.service, DAYS[15:], lambda done: None)

    opened = counts_of(judged, None).incidents
    assert opened >= 1
    assert judged.judgements[0].incidents or judged.judgements[0].verdict["verdict"] != "investigate"
    assert {row["day"] for one in judged.judgements for row in one.incidents} <= set(DAYS[15:])


def test_days_that_are_not_closed_cannot_be_judged_again(world: World):
    with pytest.raises(RangeError, match=f"no closed day from {span(40, 40)[0]} to now. Closed: {DAYS[0]} to"):
        closed_range(world, span(40, 40)[0], None)


def test_training_in_a_copy_says_what_training_here_says_and_leaves_the_home_alone(tmp_path: Path):
    """Under the declared policy the copy repeats the releases of the home, so its losses are the home's own."""
    here = a_world(tmp_path / "home")
    days = span(0, 11)
    deliver_all(here.home.landing, days)
    close(here, days)
    policy = tmp_path / "policy.yaml"
    policy.write_text("model: {cadence: never}\n")
    before = fingerprint(here.home.path)

    found = backtest(here, Asked(policy, first=days[5], dates=0, is_trained=True), silent)

    assert fingerprint(here.home.path) == before
    assert found.quality.served is not None
    assert found.declared.trained == found.quality
    assert found.proposed.trained is not None
    assert found.proposed.trained.served != found.quality.served
    used, counts = [row["cpu_seconds"] for row in here.ledger.rows("trainings", here.name)], found.declared.counts
    assert counts.retrainings and counts.cost_seconds == pytest.approx(len(counts.retrainings) * median(used), abs=0.1)
    assert "declared, trained again in a copy: brier" in "\n".join(lines(found))


def test_a_model_that_runs_elsewhere_can_be_judged_again_and_never_trained(tmp_path: Path):
    """Its log repeats and contradicts itself and comes late; the same days are found strange, for the same reasons."""
    elsewhere = twenty_days(tmp_path / "home", one_by_one=[])
    policy = tmp_path / "policy.yaml"
    policy.write_text("drift: {learning_z: 50}\n")
    days = closed_range(elsewhere, None, None)

    again = judge_again(elsewhere, elsewhere.service, days, lambda done: None)
    found = backtest(elsewhere, Asked(policy, dates=0), silent)

    reasons = stored(elsewhere, "verdicts").sort_values("day")["reason"]
    assert [one.verdict["reason"] for one in again.judgements] == list(reasons)
    assert any("contradict" in reason for reason in reasons)
    assert found.quality.served is not None
    assert found.proposed.counts.retrainings == ()
    with pytest.raises(RangeError, match="its model runs elsewhere; leave --train out"):
        backtest(elsewhere, Asked(policy, dates=0, is_trained=True), silent)
