"""Where alerts go: the log always, and the channels that the environment names."""

import logging
import os

log = logging.getLogger("mlops_assets.alerts")
CHANNELS = "MLOPS_ALERT_URLS"
"""Environment variable with apprise URLs, separated by spaces; they are secrets and are stored nowhere else."""


def notify(decision_id: str, text: str, *, is_history: bool) -> str:
    """Tell people once per decision; history is recorded, not sent. Returns what happened, without the URL."""
    if is_history:
        return "recorded, not sent: history"
    log.warning("%s [%s]", text, decision_id)
    urls = os.environ.get(CHANNELS, "").split()
    if not urls:
        return "logged; no channel is named in " + CHANNELS
    import apprise

    channels = apprise.Apprise()
    for url in urls:
        channels.add(url)
    delivered = channels.notify(title=text[:120], body=f"{text}\n\n{decision_id}")
    if not delivered:
        raise OSError(f"not delivered to every one of {len(urls)} channels")
    return f"delivered to {len(urls)} channels"
