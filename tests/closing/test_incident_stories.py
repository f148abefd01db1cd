"""Incidents in a whole service: what days, people and messages make of them, in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from receivers import WebHook, running
from states import assert_same
from toy_stories import copy_of, untrained
from toy_world import FIRST, a_world, close, deliver_all, span

from mlops_assets import DriftRule, IncidentPolicy
from mlops_assets.adapters.notifier import Channel
from mlops_assets.closing.standing import pending_decisions, standing_before
from mlops_assets.closing.telling import message
from mlops_assets.closing.world import World
from mlops_assets.day_loop import act_on
from mlops_assets.errors import DeliveryError, UnknownNameError
from mlops_assets.people import Closing, acknowledge_incident, close_incident
from mlops_assets.promises import promises
from mlops_assets.status import open_incident_page, status_lines, status_of

pytestmark = pytest.mark.slow

INCIDENT = "parcels-e1-2024-03-05-open_incident-scans"


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@pytest.fixture(scope="module")
def eight_days(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Scans stay away on 5 March; nothing else happens for a week."""
    world = a_world(tmp_path_factory.mktemp("incidents") / "home", untrained())
    deliver_all(world.home.landing, span(0, 12), without=[("scans", day(4))])
    close(world, span(0, 3))
    for number in range(4, 9):
        close(world, [day(number)], acts=False)
    return world


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebHook]:
    with running(WebHook()) as server:
        monkeypatch.setenv("MLOPS_ALERT_URLS", server.url)
        yield server


def with_time_of_its_days(world: World) -> World:
    """The same history under the demo clock: now is the end of its last closed day, not some years later."""
    return a_world(world.home.path, world.service.model_copy(update={"clock": "demo"}))


def events(world: World, incident_id: str = INCIDENT) -> list[tuple[date, str]]:
    rows = world.ledger.effective("incident_events", world.name)
    return [(row["day"], row["event"]) for row in rows if row["incident_id"] == incident_id]


def test_a_missing_file_is_one_incident_that_goes_quiet_and_stays(eight_days: World) -> None:
    assert events(eight_days) == [(day(4), "seen"), (day(5), "escalated"), (day(7), "quieted")]
    [incident] = standing_before(eight_days, day(9)).incidents.values()
    assert (incident.state, incident.tier, incident.opened_on) == ("quiet, unresolved", "moderate", day(4))
    assert incident.level_check == "not compared: no daily series"
    [shown] = status_of(eight_days)["open_incidents"]
    assert shown["state"] == "quiet, unresolved"


@pytest.mark.parametrize(("tier", "channel"), [("moderate", Channel.TICKET), ("severe", Channel.PAGE)])
def test_the_tier_names_the_channel_also_when_nobody_came(eight_days: World, tier: str, channel: Channel) -> None:
    rows = eight_days.ledger.effective("decisions", eight_days.name)
    [escalation] = [row for row in rows if row["kind"] == "escalate" and row["day"] == day(5)]
    assert escalation["evidence"]["tier"] == "moderate"
    told = message(eight_days, {**escalation, "evidence": {**escalation["evidence"], "tier": tier}})
    assert (told.channel, told.body.splitlines()[0]) == (channel, "To: Mia (accountable)")


def test_days_as_a_block_and_one_by_one_tell_the_same(eight_days: World, tmp_path: Path) -> None:
    block = a_world(tmp_path / "home", eight_days.service)
    deliver_all(block.home.landing, span(0, 12), without=[("scans", day(4))])
    close(block, span(0, 8))
    assert_same(eight_days, block)


def test_who_takes_an_incident_in_time_is_not_passed_over(eight_days: World, tmp_path: Path) -> None:
    world = a_world(tmp_path / "home", untrained())
    deliver_all(world.home.landing, span(0, 6), without=[("scans", day(4))])
    close(world, span(0, 4))
    said = acknowledge_incident([world], INCIDENT, by="Mia", reason="")
    assert said.startswith(f"Mia has incident {INCIDENT} from {day(5)} on; it is not escalated")
    close(world, span(5, 6))
    assert events(world) == [(day(4), "seen"), (day(5), "acknowledged")]
    assert "Mia has it" in "\n".join(status_lines(status_of(world)))


def test_a_named_person_closes_it_and_what_they_said_is_kept(eight_days: World, tmp_path: Path) -> None:
    world = copy_of(eight_days, tmp_path / "home")
    said = close_incident([world], INCIDENT, Closing("bad_data"), by="Mia", reason="the depot was shut")
    assert said.startswith(
        f"incident {INCIDENT} counts as closed from {day(9)} on, {day(4)} to {day(4)} leave baselines"
    )
    assert f"closed from {day(9)} on by Mia" in "\n".join(status_lines(status_of(world)))
    close(world, span(9, 9))
    assert events(world)[-1] == (day(9), "closed")
    assert not standing_before(world, day(10)).incidents
    told = status_of(world)
    assert (told["open_incidents"], told["precision"]["closed"], told["precision"]["real"]) == ([], 1, 1)


def test_a_false_alarm_counts_against_the_monitor(eight_days: World, tmp_path: Path) -> None:
    world = copy_of(eight_days, tmp_path / "home")
    close_incident([world], INCIDENT, Closing("false_alarm"), by="Mia", reason="a holiday")
    close(world, span(9, 9))
    assert "precision       0 of 1 closed incidents were real" in "\n".join(status_lines(status_of(world)))


def test_what_is_not_open_cannot_be_closed(eight_days: World) -> None:
    with pytest.raises(UnknownNameError) as refused:
        close_incident([eight_days], INCIDENT[:-1], Closing("bad_data"), by="Mia", reason="x")
    assert f"Did you mean '{INCIDENT}'?" in str(refused.value)


def test_the_message_is_the_playbook_sent_until_it_is_delivered_once(tmp_path: Path, hook: WebHook) -> None:
    world = a_world(tmp_path / "home", untrained())
    deliver_all(world.home.landing, span(0, 4), without=[("scans", day(4))])
    close(world, span(0, 3))
    close(world, [day(4)], acts=False)
    world = with_time_of_its_days(world)
    hook.refusals = [500]
    with pytest.raises(DeliveryError):
        act_on(world, INCIDENT, by="alert sensor")
    assert {row["decision_id"]: row["attempt"] for row in pending_decisions(world)}[INCIDENT] == 2
    assert act_on(world, INCIDENT, by="alert sensor") == "delivered to 1 ticket addresses"
    assert act_on(world, INCIDENT, by="alert sensor") == f"{INCIDENT} is done already"
    [got] = hook.received
    assert got["message"].startswith("To: Mia (responsible)") and got["message"].endswith(INCIDENT)
    assert "source `scans` (parcels handed over), contract `scans.json`; read by late, last_scan" in got["message"]
    rows = [row for row in world.ledger.rows("actions", world.name) if row["decision_id"] == INCIDENT]
    assert [(row["attempt"], row["state"]) for row in rows] == [
        (1, "failed"), (1, "intended"), (2, "done"), (2, "intended"),
    ]  # fmt: skip
    assert not [row for row in rows if "s3cr3t" in row["detail"] or "t0p-secret" in row["detail"]]


def test_an_old_alert_is_recorded_and_not_sent(eight_days: World, tmp_path: Path, hook: WebHook) -> None:
    world = copy_of(eight_days, tmp_path / "home")  # its days are of 2024, the wall clock is not
    assert act_on(world, INCIDENT, by="alert sensor") == "recorded, not sent: history"
    assert hook.received == []


def test_the_week_ends_with_a_page_for_the_owner_also_when_nothing_is_to_do(tmp_path: Path, hook: WebHook) -> None:
    world = a_world(tmp_path / "home", untrained(incidents=IncidentPolicy(digest="weekly")))
    deliver_all(world.home.landing, span(0, 3))
    close(world, span(0, 2), acts=False)
    [digest] = [row for row in pending_decisions(world) if row["kind"] == "digest"]
    assert digest["because"] == "week to 2024-03-03: 0 open incidents, nothing to do"
    act_on(with_time_of_its_days(world), digest["decision_id"], by="digest sensor")
    [got] = hook.received
    assert got["message"].startswith("To: Mia <mia@example.com>") and "closed through  2024-03-03" in got["message"]


def test_a_rule_declared_today_says_what_it_would_have_done_in_the_days_that_are_closed(eight_days: World) -> None:
    drift = eight_days.service.drift.model_copy(update={"rules": (DriftRule(measure="mean_values", threshold=3),)})
    today = World(eight_days.service.model_copy(update={"drift": drift}), eight_days.home)
    said = ("plain rule", "mean_values above 3: would have given 0 alarms on 0 of the last 9 days (recorded)")
    assert said in list(promises(today))


def test_the_page_says_what_followed(eight_days: World) -> None:
    page = open_incident_page([eight_days], INCIDENT, None)
    _, _, followed = page.partition("## Consequences")
    assert "- It showed on 1 day; " in followed
    assert "- The score did not move on these days." in followed
    assert "- Nothing was frozen, rolled back or trained because of it." in followed
    assert "- Other incidents opened on these days: none." in followed


def test_a_playbook_of_the_service_replaces_the_shipped_one(eight_days: World, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "delivery.md").write_text("Call the depot about $cause.")
    policy = IncidentPolicy(digest="never", playbooks=str(tmp_path / "pages"))
    world = a_world(eight_days.home.path, untrained(incidents=policy))
    assert open_incident_page([world], INCIDENT, None) == "Call the depot about scans."
