"""Every incident comes with a page that is filled in, names people, and can be carried out."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from test_docs import mlops_commands, unknown_words
from toy_world import a_service, orders, scans

from mlops_assets import Duty, IncidentPolicy
from mlops_assets.errors import DeclarationError
from mlops_assets.monitoring_loop.incidents import Incident, opened
from mlops_assets.monitoring_loop.playbooks import KINDS, SHIPPED, TIERS, kind_of, playbook

DAY = date(2024, 3, 4)


def an_incident(cause: str, tier: str = "moderate", **children: str) -> Incident:
    found = opened(f"parcels-e1-{DAY}-open_incident-{cause.replace(':', '-')}", cause, DAY, tier, f"{cause} moved")
    return replace(found, children=children)


CAUSES = {
    "delivery": an_incident("scans"),
    "feature": an_incident("scans", last_delay="last_delay: mean 9, expected 3"),
    "volume": an_incident("drift:rows"),
    "score": an_incident("drift:score", score="score: mean .4, expected .3"),
    "quality": an_incident("quality:brier"),
    "operations": an_incident("objective:latency"),
    "other": an_incident("loop_sync:label"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_incident_has_its_page(kind: str) -> None:
    incident = CAUSES[kind]
    assert kind_of(a_service(), incident) == kind
    page = playbook(a_service(), incident)
    assert "$" not in page and incident.incident_id in page
    assert "## What is asked of you" in page and "## Commands" in page


def test_the_page_says_what_moved_where_to_look_and_who_is_who() -> None:
    duty = Duty(responsible="Mia", accountable="Ben", consulted=("Lea",), informed=("Tom", "Ida"))
    service = a_service()
    service = service.model_copy(update={"raci": service.raci.model_copy(update={"incident_response": duty})})
    page = playbook(service, CAUSES["feature"])
    assert "- last_delay: mean 9, expected 3" in page
    assert "source `scans` (parcels handed over), contract `scans.json`; read by late, last_scan" in page
    assert "| responsible / accountable | Mia / Ben |" in page and "| consulted / informed | Lea / Tom, Ida |" in page
    assert "escalated to Ben" in " ".join(page.split())


@pytest.mark.parametrize("tier", TIERS)
def test_the_tier_says_what_is_asked(tier: str) -> None:
    asked = (SHIPPED / f"tier-{tier}.md").read_text().split("$")[0].strip()
    assert asked in playbook(a_service(), an_incident("scans", tier))


def test_the_commands_of_a_page_exist() -> None:
    commands = list(mlops_commands(playbook(a_service(), CAUSES["feature"])))
    assert [words[1] for words in commands] == ["sql", "sql", "approve", "close"]
    assert [unknown_words(words) for words in commands] == [[]] * 4


@pytest.mark.parametrize(
    ("kind", "table"), [("quality", "rules"), ("operations", "objectives"), ("other", "loop_sync")]
)
def test_the_commands_look_where_the_cause_was_judged(kind: str, table: str) -> None:
    assert f"select day, tier, reason from parcels.{table} where day between" in playbook(a_service(), CAUSES[kind])


def test_a_severe_incident_asks_whether_the_champion_may_go_on_and_how_to_find_out() -> None:
    commands = list(mlops_commands(playbook(a_service(), an_incident("drift:score", "severe"))))
    [back] = [words for words in commands if words[1] == "rollback"]
    assert back[-1] == "--dry-run" and unknown_words(back) == []


def test_the_page_says_whom_to_ask_upstream() -> None:
    asked = a_service(sources=(orders(), scans(owner="the depot's desk")))
    assert "contract `scans.json`; read by late, last_scan; ask the depot's desk" in playbook(asked, CAUSES["feature"])


def test_a_template_that_names_an_unknown_fact_is_named(tmp_path: Path) -> None:
    (tmp_path / "delivery.md").write_text("Call $nobody.")
    service = a_service(incidents=IncidentPolicy(playbooks=str(tmp_path)))
    with pytest.raises(DeclarationError) as refused:
        playbook(service, CAUSES["delivery"])
    assert "service 'parcels' > incidents > playbooks > delivery.md: 'nobody' is no fact." in str(refused.value)
