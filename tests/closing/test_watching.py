"""What a closing notices beside the data: broken promises, loops that part, and what changed behind the numbers."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml
from toy_stories import stored, untrained
from toy_world import a_service, a_world, close, deliver_all, span

from mlops_assets import DegradationRule, DriftPolicy, LatencyObjective, OperationsPolicy, QualityPolicy
from mlops_assets.closing.plotting import charts_of_assets
from mlops_assets.closing.world import World
from mlops_assets.errors import UnknownNameError
from mlops_assets.people import set_frozen
from mlops_assets.status import DRAWN, open_incident_page, series_chart, status_lines, status_of

pytestmark = pytest.mark.slow


def told(world: World, kind: str) -> list[tuple[date, str, str, str]]:
    """Lines of the change log of one kind."""
    rows = world.ledger.effective("changes", world.name)
    return [(row["day"], row["subject"], row["before"], row["after"]) for row in rows if row["kind"] == kind]


def causes(world: World) -> list[tuple[date, str]]:
    """Incidents, by day and cause."""
    return [(row["day"], row["cause"]) for row in world.ledger.effective("incidents", world.name)]


def test_a_broken_promise_opens_one_incident_and_reads_the_same_when_computed_again(tmp_path: Path) -> None:
    """Nobody answers within a nanosecond: the budget is spent twenty times too fast on every day."""
    promised = OperationsPolicy(objectives=(LatencyObjective(limit_ms=1e-6),))
    world = a_world(tmp_path, untrained(operations=promised))
    days = span(0, 4)
    deliver_all(world.home.landing, days)
    close(world, days)
    assert causes(world) == [(days[1], "objective:latency")], "the first day has no requests"
    levels = stored(world, "objectives").sort_values("day")
    assert levels["tier"].tolist() == ["stable", *["moderate"] * 4]
    assert levels["burn"].dropna().tolist() == [20.0] * 4
    assert stored(world, "verdicts").sort_values("day")["verdict"].tolist() == ["quiet", *["investigate"] * 4]

    before = stored(world, "operations")
    close(world, days)
    assert stored(world, "operations").equals(before), "latencies are those of the closing"
    assert world.ledger.rows("divergences", world.name) == []


def test_a_label_that_means_something_new_is_told_until_a_champion_has_learned_it(tmp_path: Path) -> None:
    bad = DegradationRule(metric="brier", above=0.001, broken_days=1, of_days=1, min_labels=5)
    quality = QualityPolicy(min_labels=5, degradation=(bad,))
    world = a_world(tmp_path, a_service(quality=quality))
    deliver_all(world.home.landing, span(0, 12))
    close(world, span(0, 11))
    told_on = stored(world, "rules").query("rule == @bad.sentence").set_index("day")["reason"]
    assert "; mean loss 0." in told_on[span(11, 11)[0]] and "concept" in told_on[span(11, 11)[0]], "it says which"
    assert [row["role"] for row in world.releases()][:2] == ["champion", "fallback"], "the story needs a champion"
    renamed = a_service().label.model_copy(update={"version": "late20_v2", "value": "delay_min > 20"})
    changed = a_world(tmp_path, a_service(label=renamed, quality=quality))
    (day,) = span(12, 12)
    close(changed, [day])

    ((on, subject, before, after),) = [row for row in told(changed, "label") if row[0] == day]
    assert (on, subject) == (day, "definition")
    assert before.startswith("late10_v1 ") and after.startswith("late20_v2 ")
    sync = stored(changed, "loop_sync").set_index(["day", "check"])
    assert sync.loc[(span(11, 11)[0], "label_semantics"), "state"] == "agrees"
    assert sync.loc[(day, "label_semantics"), "state"] == "differs"
    assert (day, "loop_sync:label_semantics") in causes(changed)
    models = [row[3] for row in told(changed, "model") if row[1] == "champion"]
    assert models == list(
        dict.fromkeys(row["model_version"] for row in changed.releases() if row["role"] == "champion")
    )


def test_a_training_that_failed_is_an_incident_at_the_next_closing(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    deliver_all(world.home.landing, span(0, 5))
    close(world, span(0, 3), acts=False)
    (decision,) = [row for row in world.ledger.effective("decisions", world.name) if row["kind"] == "retrain"]
    assert not any(cause == "loop_sync:training_failed" for _day, cause in causes(world))
    failed = {
        "service": world.name, "epoch": 1, "day": decision["day"], "decision_id": decision["decision_id"],
        "attempt": 1, "state": "failed", "by": "run", "detail": "OSError: the disk is full",
        "acted_at": world.calendar.start_of(span(4, 4)[0]), "recorded_at": None,
    }  # fmt: skip
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "actions", [failed])
    close(world, span(4, 4), acts=False)
    assert (span(4, 4)[0], "loop_sync:training_failed") in causes(world)

    done = {**failed, "attempt": 2, "state": "done", "acted_at": world.calendar.start_of(span(5, 5)[0])}
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "actions", [done])
    close(world, span(5, 5), acts=False)
    close(world, span(3, 5), acts=False)  # computed again, when the training is done
    sync = stored(world, "loop_sync").set_index(["day", "check"])["state"]
    assert [sync[(day, "training_failed")] for day in span(3, 5)] == ["agrees", "failed", "agrees"]
    assert world.ledger.rows("divergences", world.name) == []


def test_the_change_log_begins_with_what_everything_stands_at_and_then_says_only_what_changed(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained())
    deliver_all(world.home.landing, span(0, 4))
    close(world, span(0, 2))
    first = span(0, 0)[0]
    rows = world.ledger.effective("changes", world.name)
    assert {row["kind"] for row in rows} == {"contract", "dependency", "events", "features", "label", "owner"}
    assert {row["day"] for row in rows} == {first} and {row["before"] for row in rows} == {""}
    assert "duckdb" in [subject for _d, subject, _b, _a in told(world, "dependency")]

    set_frozen(world, True, by="Mia", reason="a strike", is_dry_run=False)
    close(world, span(3, 4))
    later = [row for row in world.ledger.effective("changes", world.name) if row["day"] > first]
    assert [(row["day"], row["kind"], row["by"], row["reason"]) for row in later] == [
        (span(3, 3)[0], "owner:freeze", "Mia", "a strike")
    ]


def test_a_planned_change_begins_and_ends_in_the_change_log_and_is_drawn_beside_what_moved(tmp_path: Path) -> None:
    """A sale of two days; on its second one no orders arrive for the third."""
    days = span(0, 5)
    path = tmp_path / "events.yaml"
    fields = {"id": "sale", "kind": "sale", "start": days[2], "end": days[3], "declared_on": days[1], "expiry": days[3]}
    said = {**fields, "owner": "Mia", "reason": "spring sale", "features": ["weight"]}
    path.write_text(
        yaml.safe_dump(
            {"events": [{name: value if isinstance(value, list) else str(value) for name, value in said.items()}]}
        )
    )
    world = a_world(tmp_path / "home", untrained(drift=DriftPolicy(known_events=str(path))))
    deliver_all(world.home.landing, days, without=[("orders", days[3])])
    close(world, days)

    assert told(world, "event") == [(days[2], "sale", "", "on, sale"), (days[4], "sale", "on, sale", "over")]
    assert [(day, after.split(" ")[0]) for day, _s, _b, after in told(world, "events")] == [
        (days[0], "0"),
        (days[1], "1"),
    ]
    [incident] = world.ledger.effective("incidents", world.name)
    page = open_incident_page([world], incident["incident_id"], None)
    assert "   changes | ab c\n" in page
    assert f"b {days[2]} event sale: on, sale" in page
    assert f"c {days[4]} event sale: on, sale -> over" in page
    assert f"    opened |{' ' * 4}^" in page
    [line] = [line for line in status_lines(status_of(world)) if "event sale: on, sale -> over" in line]
    assert "changed: " in line
    assert series_chart(world, "weight", None).startswith(f"weight, {days[0]} to {days[5]}")
    drawn = charts_of_assets(world, DRAWN, days[5])
    assert all(drawn.values()), drawn
    assert {chart.splitlines()[0].partition(",")[0] for charts in drawn.values() for chart in charts} >= {
        "rows", "quality:brier", "operations:p95_ms", "loop_sync:label", "loop_sync:data:scans", "verdict",
        "freshness:scans", "completeness:positive", "label", "operations:n",
    }  # fmt: skip
    assert all(f" {days[2]} event sale: on, sale" in chart for charts in drawn.values() for chart in charts)
    for name in ("operations:peak_per_hour", "quality:brier"):
        assert series_chart(world, name, None).startswith(f"{name}, {days[0]} to {days[5]}"), name
    with pytest.raises(UnknownNameError, match="no series is named 'wieght'. Did you mean 'weight'?"):
        series_chart(world, "wieght", None)
