"""Runs in an environment of its own, started by ``monitor.py``: what Evidently's default drift test says, as JSON.

python benchmarks/monitor_evidently.py FOLDER DAY...     # FOLDER holds DAY-reference.csv and DAY-current.csv
"""

import json
import sys
from pathlib import Path

import evidently
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def drifted(folder: Path, day: str) -> int:
    """Number of columns that drifted by Evidently's own choice of test and threshold."""
    reference, current = (pd.read_csv(folder / f"{day}-{part}.csv") for part in ("reference", "current"))
    result = Report([DataDriftPreset()]).run(current, reference)
    metrics = json.loads(result.json())["metrics"]
    counted = next(metric for metric in metrics if "DriftedColumnsCount" in json.dumps(metric))
    return int(counted["value"]["count"])


if __name__ == "__main__":
    found = {day: drifted(Path(sys.argv[1]), day) for day in sys.argv[2:]}
    print(json.dumps({"version": evidently.__version__, "drifted": found}))
