"""The monitoring loop as Dagster sees it: profiles, quality, drift, and one verdict a day."""

import dagster as dg

from mlops_assets.adapters.asset_specs import key_of, service_asset, table_metadata
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

LOOP = "monitoring"


def budget_asset(service: MLService) -> dg.AssetSpec:
    """The week's report beside the declared alarm budget: unpartitioned, reported with each Sunday that closes."""
    return service_asset(
        service,
        "alarm_budget",
        loop=LOOP,
        deps=[key_of(service, "verdict")],
        kinds={"sqlite"},
        is_daily=False,
        description="One row is one cause over 91 days: incidents, answers, and how many were real, beside the "
        "declared budget. It suggests and never changes anything. Rows of the ledger, written on Sundays.",
    )


def monitoring_assets(service: MLService) -> list[dg.AssetSpec]:
    """Measured (profiles, quality, operations), judged (drift, loop_sync), and summed up (verdict)."""

    def table(name: str, above: tuple[str, ...], words: str) -> dg.AssetSpec:
        return service_asset(
            service,
            name,
            loop=LOOP,
            deps=[key_of(service, upstream) for upstream in above],
            kinds={"deltalake", "duckdb"},
            description=words,
        )

    verdict = table(
        "verdict",
        ("quality", "operations", "drift", "loop_sync"),
        "One row is one day: quiet, note, investigate or break glass, with the reason. When it is written, the day "
        "is closed.",
    )
    return [
        table("profiles", ("features",), "Mergeable: a baseline is thirty of them added up."),
        table("quality", ("outcomes",), "Only mature predictions count; what is not measured says why."),
        table(
            "operations",
            ("predictions", "labels"),
            "What answering cost, how long it took and what failed; latencies add up bin by bin. Promised levels stand "
            "in table objectives.",
        ),
        table(
            "drift", ("profiles", "operations"), "A value beside what the trailing days predict for it, and its tier."
        ),
        table("loop_sync", ("profiles", "labels"), "The four clocks, and what must agree between them."),
        verdict.merge_attributes(metadata=table_metadata(f"{service.name}.verdicts", BY_NAME["verdicts"])),
    ]
