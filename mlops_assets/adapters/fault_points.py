"""Named points at which a test can end the process as ``kill -9`` would.

``MLOPS_FAULT=<point>:<nth>`` exits with 137 at the n-th passage of that point; without it nothing happens.
"""

import os
from collections import Counter

_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """A place where a power cut is rehearsed; the commit protocol names every one of its steps."""
    wanted, _, nth = os.environ.get("MLOPS_FAULT", "").rpartition(":")
    if wanted != name:
        return
    _passed[name] += 1
    if _passed[name] == int(nth):
        os._exit(137)
