"""A message reaches real receivers, at least once; no address is seen anywhere else."""

from __future__ import annotations

import email
import logging
from collections.abc import Iterator

import pytest
from receivers import PostOffice, WebHook, running

from mlops_assets.adapters.notifier import Channel, Message, refusal, send
from mlops_assets.errors import DeliveryError

ID = "shop-e1-2013-06-03-open_incident-weather"
TICKET = Message(ID, Channel.TICKET, "shop, 2013-06-03: wind: high", "To: Mia\n\nRead this.")


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLOPS_ALERT_URLS", *(channel.variable for channel in Channel)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hook() -> Iterator[WebHook]:
    with running(WebHook()) as server:
        yield server


def test_without_an_address_a_message_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert send(TICKET) == "logged; MLOPS_TICKET_URLS and MLOPS_ALERT_URLS name no address"
    assert f"shop, 2013-06-03: wind: high [{ID}]" in caplog.text


def test_a_webhook_gets_title_page_and_the_decisions_id(hook: WebHook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ALERT_URLS", hook.url)
    assert send(TICKET) == "delivered to 1 ticket addresses"
    [got] = hook.received
    assert got["title"] == "shop, 2013-06-03: wind: high"
    assert got["message"] == f"To: Mia\n\nRead this.\n\n{ID}"


def test_a_post_office_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(PostOffice()) as office:
        monkeypatch.setenv("MLOPS_DIGEST_URLS", office.url)
        assert send(Message(ID, Channel.DIGEST, "the week", "nothing to do")) == "delivered to 1 digest addresses"
    [letter] = office.received
    assert "the week" in letter and "ana@example.com" in letter
    parts = [part.get_payload(decode=True) for part in email.message_from_string(letter).walk()]
    assert any(b"nothing to do" in part and ID.encode() in part for part in parts if part)


def test_each_channel_has_addresses_of_its_own(hook: WebHook, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(WebHook()) as pager:
        monkeypatch.setenv("MLOPS_PAGE_URLS", pager.url)
        monkeypatch.setenv("MLOPS_ALERT_URLS", hook.url)
        send(TICKET)
        send(Message(ID, Channel.PAGE, "fire", "now"))
    assert [got["title"] for got in pager.received] == ["fire"]
    assert [got["title"] for got in hook.received] == [TICKET.title]


def test_a_message_that_one_of_two_refused_has_failed_and_says_so(
    hook: WebHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.refusals = [500]
    with running(WebHook()) as other:
        monkeypatch.setenv("MLOPS_TICKET_URLS", f"{other.url} {hook.url}")
        with pytest.raises(DeliveryError) as failed:
            send(TICKET)
        assert str(failed.value) == ("ticket: 1 of 2 addresses took the message; 2: refused it, or cannot be reached")
        assert send(TICKET) == "delivered to 2 ticket addresses"
    assert (len(other.received), len(hook.received)) == (2, 1), "at least once"


def test_a_webhook_that_points_elsewhere_is_not_followed(hook: WebHook, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.refusals = [302]
    monkeypatch.setenv("MLOPS_ALERT_URLS", hook.url)
    with pytest.raises(DeliveryError):
        send(TICKET)
    assert hook.received == []


def test_no_address_is_seen_in_errors_or_logs(
    hook: WebHook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hook.refusals = [500]
    monkeypatch.setenv("MLOPS_ALERT_URLS", f"{hook.url} json://user:t0p-secret@127.0.0.1:1/hooks/s3cr3t-token")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DeliveryError) as failed:
        send(TICKET)
    seen = caplog.text + str(failed.value) + repr(failed.value)
    assert "JSON POST" in seen, "apprise does log"
    for secret in ("t0p-secret", "s3cr3t-token", "hooks"):
        assert secret not in seen


@pytest.mark.parametrize(
    ("scheme", "host", "allowed", "why"),
    [
        ("json", "127.0.0.1", [], ""),
        ("slack", "T1JJ3T3L2", [], ""),
        ("jsons", "8.8.8.8", [], "is a webhook to a host that MLOPS_ALERT_HOSTS does not name"),
        ("jsons", "8.8.8.8", ["8.8.8.8"], ""),
        ("json", "8.8.8.8", ["8.8.8.8"], "is a webhook without encryption; write jsons://"),
        ("forms", "10.0.0.7", ["10.0.0.7"], ""),
        ("xmls", "169.254.169.254", ["169.254.169.254"], "is a webhook to a link-local address"),
        ("jsons", "nowhere.invalid", ["nowhere.invalid"], "is a webhook to a host that cannot be found"),
    ],
)
def test_a_webhook_goes_to_this_machine_or_encrypted_to_a_named_host(
    scheme: str, host: str, allowed: list[str], why: str
) -> None:
    assert refusal(scheme, host, allowed) == why


def test_a_name_that_leads_into_a_private_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers for the name may change its address after the operator allowed it."""
    monkeypatch.setattr("socket.getaddrinfo", lambda host, port: [(0, 0, 0, "", ("10.0.0.7", 0))])
    assert refusal("jsons", "hooks.example.com", ["hooks.example.com"]) == (
        "is a webhook to a name that leads into a private network; name the host by its number"
    )


def test_a_host_that_is_not_named_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_ALERT_URLS", "jsons://user:t0p-secret@hooks.example.com/x")
    with pytest.raises(DeliveryError) as failed:
        send(TICKET)
    assert "MLOPS_ALERT_HOSTS does not name" in str(failed.value) and "t0p-secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("json://user:t0p-secret@hooks.example.com/x", "is a webhook without encryption; write jsons://"),
        ("carrier-pigeon://t0p-secret", "is no address that apprise knows"),
    ],
)
def test_an_address_that_cannot_be_used_is_counted_not_shown(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLOPS_ALERT_URLS", url)
    with pytest.raises(DeliveryError) as failed:
        send(TICKET)
    assert why in str(failed.value)
    assert "t0p-secret" not in str(failed.value) + caplog.text
