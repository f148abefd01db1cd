"""What a replay writes to Dagster's history in batches is what Dagster would have written, event by event."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.adapters.dagster_home import WAITING_EVENTS, instance, prepare_dagster_home
from mlops_assets.adapters.home import Home

DAYS = [date(2024, 3, 1) + timedelta(days=n) for n in range(25)]
NAMES = ("features", "verdict")


def a_home(folder: Path) -> Home:
    return Home(folder, folder / "landing", "", "")


@contextmanager
def dagsters_own(home: Home) -> Iterator[dg.DagsterInstance]:
    """The same files, as the pages and the daemon read and write them."""
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(home))) as opened:
        yield opened


def run_days(opened: dg.DagsterInstance) -> list[int]:
    """A run that reports fifty materializations, and what could be seen of them when the 45th was out."""
    seen: list[int] = []

    @dg.multi_asset(
        specs=[dg.AssetSpec(name, partitions_def=dg.DailyPartitionsDefinition("2024-03-01")) for name in NAMES],
        can_subset=True, backfill_policy=dg.BackfillPolicy.single_run(),
    )  # fmt: skip
    def close_days(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        for count, day in enumerate(DAYS):
            for name in NAMES:
                context.log_event(dg.AssetMaterialization(name, partition=day.isoformat(), metadata={"rows": count}))
            if count == 22:
                seen.append(len(opened.get_materialized_partitions(dg.AssetKey("verdict"))))
        yield from ()

    tags = {
        "dagster/asset_partition_range_start": DAYS[0].isoformat(),
        "dagster/asset_partition_range_end": DAYS[-1].isoformat(),
    }
    assert dg.materialize([close_days], instance=opened, tags=tags).success
    return seen


def told(home: Home) -> tuple[list[tuple[object, ...]], dict[str, object]]:
    """Every asset event, and the newest one of each asset, as Dagster's own storage reads them."""
    with dagsters_own(home) as opened:
        kinds = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        (run,) = opened.get_runs()
        logs = [e for kind in kinds for e in opened.all_logs(run.run_id, of_type=kind)]
        newest = {name: opened.get_latest_materialization_event(dg.AssetKey(name)) for name in NAMES}
        partitions = {name: opened.get_materialized_partitions(dg.AssetKey(name)) for name in NAMES}
    events = [
        (e.get_dagster_event().event_type_value, str(e.get_dagster_event().asset_key), e.get_dagster_event().partition)
        for e in logs
    ]
    metadata = {n: (e.asset_materialization.partition, e.asset_materialization.metadata) for n, e in newest.items()}
    return events, {"newest": metadata, "partitions": partitions}


@pytest.mark.slow
def test_batches_say_what_single_events_say_and_nobody_reads_past_what_waits(tmp_path: Path) -> None:
    assert len(DAYS) * len(NAMES) > WAITING_EVENTS, "the story needs a batch that is full and one that is not"
    single, batched = a_home(tmp_path / "single"), a_home(tmp_path / "batched")
    with dagsters_own(single) as opened:
        assert run_days(opened) == [23]
    with instance(batched) as opened:
        assert run_days(opened) == [23]
    assert told(single) == told(batched)
    assert len(told(batched)[0]) == 2 * len(DAYS) * len(NAMES)
