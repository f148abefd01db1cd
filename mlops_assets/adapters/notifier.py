"""Where messages go: the log always, and the channels that the environment names.

Channel addresses hold tokens and passwords. They are read from the environment when a message is sent, and stand in
no exception, log line or ledger row: ``scrubbed`` takes them out of everything that leaves this file.
"""

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from mlops_assets.errors import DeliveryError

log = logging.getLogger("mlops_assets.alerts")

EVERYTHING = "MLOPS_ALERT_URLS"
"""Environment variable with apprise addresses, separated by spaces, for every channel without one of its own."""

TITLE_LETTERS, BODY_LETTERS = 120, 20_000
HOSTS = "MLOPS_ALERT_HOSTS"
"""Environment variable with the hosts, separated by spaces, that webhooks may go to."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PLAIN_WEBHOOKS = {"json": "jsons", "xml": "xmls", "form": "forms"}
"""Webhooks without encryption, and what to write instead; allowed to this machine only."""
WEBHOOKS = {*PLAIN_WEBHOOKS, *PLAIN_WEBHOOKS.values()}


class Channel(StrEnum):
    """How urgent a message is; each has an environment variable of its own."""

    PAGE = "page"
    TICKET = "ticket"
    DIGEST = "digest"

    @property
    def variable(self) -> str:
        """Name of the environment variable with the channel's addresses."""
        return f"MLOPS_{self.value.upper()}_URLS"


@dataclass(frozen=True)
class Message:
    """One message about one decision; whoever gets it twice sees so by the decision's id."""

    decision_id: str
    channel: Channel
    title: str
    body: str


def addresses(channel: Channel, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The channel's addresses, or those for everything."""
    return (environment.get(channel.variable) or environment.get(EVERYTHING, "")).split()


def send(message: Message) -> str:
    """Tell people, at least once: the log, then every address. Returns what happened, without any address.

    Raises:
        DeliveryError: an address is none, or did not take the message; the caller tries again, with all of them.
    """
    log.warning("%s [%s]", message.title, message.decision_id)
    urls = addresses(message.channel)
    if not urls:
        return f"logged; {message.channel.variable} and {EVERYTHING} name no address"
    with _quiet_about(urls):
        failed = [f"{number}: {why}" for number, url in enumerate(urls, 1) if (why := _deliver(url, message))]
    if failed:
        raise DeliveryError(
            f"{message.channel}: {len(urls) - len(failed)} of {len(urls)} addresses took the message; "
            f"{scrubbed('; '.join(failed), urls)}"
        )
    return f"delivered to {len(urls)} {message.channel} addresses"


def _deliver(url: str, message: Message) -> str:
    """Why an address did not take the message; empty: it did."""
    import apprise

    target = apprise.Apprise.instantiate(url, asset=apprise.AppriseAsset(http_redirects=False))
    if target is None:
        return "is no address that apprise knows"
    if why := refusal(urlsplit(url).scheme.lower(), str(target.host), os.environ.get(HOSTS, "").split()):
        return why
    body = f"{message.body[:BODY_LETTERS]}\n\n{message.decision_id}"
    try:
        is_taken = target.notify(title=message.title[:TITLE_LETTERS], body=body)
    except (OSError, TypeError, ValueError) as error:  # what plugins let through
        return f"{type(error).__name__}: {error}"
    return "" if is_taken else "refused it, or cannot be reached"


def refusal(scheme: str, host: str, allowed: Collection[str]) -> str:
    """Why a webhook may not go to a host; empty: it may.

    To this machine, or encrypted to a host that the operator has named. A name must lead to public addresses, so that
    a message cannot be sent into the network it comes from; a private host is named by its number. Never link-local:
    machines in a cloud tell their credentials there.
    """
    if scheme not in WEBHOOKS or host in LOOPBACK:
        return ""
    if scheme in PLAIN_WEBHOOKS:
        return f"is a webhook without encryption; write {PLAIN_WEBHOOKS[scheme]}://"
    if host not in allowed:
        return f"is a webhook to a host that {HOSTS} does not name"
    try:
        found = {ipaddress.ip_address(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return "is a webhook to a host that cannot be found"
    is_number = re.fullmatch(r"[0-9.]+|[0-9a-f:]*:[0-9a-f:.]*", host) is not None
    if any(one.is_link_local for one in found):
        return "is a webhook to a link-local address"
    if not is_number and not all(one.is_global for one in found):
        return "is a webhook to a name that leads into a private network; name the host by its number"
    return ""


def scrubbed(text: str, urls: Sequence[str]) -> str:
    """A text without the addresses and without any part of them that may be secret."""
    for secret in sorted({part for url in urls for part in _secrets(url)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> Iterator[str]:
    """The address itself, its user, password, path and query, and the values in them."""
    yield url
    parts = urlsplit(url)
    yield from (part for part in (parts.netloc.rpartition("@")[0], parts.path.strip("/"), parts.query) if part)
    yield from (part for part in re.split(r"[/:@?&=]", f"{parts.netloc}/{parts.path}?{parts.query}") if len(part) > 3)


@contextmanager
def _quiet_about(urls: Sequence[str]) -> Iterator[None]:
    """While the body runs, log lines of apprise and what it uses have no address in them."""

    class Scrub(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            record.msg, record.args = scrubbed(record.getMessage(), urls), ()
            return True

    scrub: Any = Scrub()
    loggers = [logging.getLogger(name) for name in ("apprise", "urllib3.connectionpool", "requests")]
    for logger in loggers:
        logger.addFilter(scrub)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(scrub)
