"""Runs the parcel world's days in a process of its own, so that it can be ended at a fault point."""

import sys
from pathlib import Path

from toy_world import a_world, close, span

if __name__ == "__main__":
    close(a_world(Path(sys.argv[1])), span(0, int(sys.argv[2])))
