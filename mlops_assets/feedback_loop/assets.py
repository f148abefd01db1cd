"""The feedback loop as Dagster sees it: what was answered, what became known, and how the two meet."""

import dagster as dg

from mlops_assets.adapters.asset_specs import key_of, service_asset, source_key
from mlops_assets.service.service import MLService

LOOP = "feedback"
_BY_RELEASES = "Which version answers is read from the ledger's releases."


def feedback_assets(service: MLService) -> list[dg.AssetSpec]:
    """Predictions, labels and outcomes. Predictions read role changes from the ledger: no edge from ``release``."""
    label, log = service.label, service.prediction_log
    return [
        service_asset(
            service,
            "predictions",
            loop=LOOP,
            deps=[source_key(log.source) if log else key_of(service, "features")],
            kinds={"deltalake", "duckdb" if log else "scikitlearn"},
            description="A fact: written when its day closes and never again. "
            + ("Read from the log of a model that runs elsewhere." if log else _BY_RELEASES),
        ),
        service_asset(
            service,
            "labels",
            loop=LOOP,
            deps=[source_key(label.source)],
            kinds={"deltalake", "duckdb"},
            description=f"A fact. Definition {label.version}, window {label.window_hours:g} h, never labelled: "
            f"{label.never_labelled}.",
        ),
        service_asset(
            service,
            "outcomes",
            loop=LOOP,
            deps=[key_of(service, "predictions"), key_of(service, "labels")],
            kinds={"deltalake", "duckdb"},
            description="Partition = prediction day; a later closing rewrites the days it brings labels for.",
        ),
    ]
