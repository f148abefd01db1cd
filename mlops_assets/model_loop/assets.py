"""The model loop as Dagster sees it: from labelled features to a released version, run by a decision."""

import dagster as dg

from mlops_assets.adapters.asset_specs import key_of, service_asset
from mlops_assets.service.service import MLService

LOOP = "model"


def model_assets(service: MLService) -> list[dg.AssetSpec]:
    """Training set, candidate, evaluation and release: unpartitioned, outside the daily job."""
    chain = (
        (
            "training_set",
            ("features", "labels"),
            {"deltalake", "duckdb"},
            "Mature, labelled rows only; the newest mature days are kept from the candidate and judge it.",
        ),
        (
            "candidate",
            ("training_set",),
            {"mlflow", "scikitlearn"},
            "The fitted model tiers in MLflow, with fingerprint, signature and the numbers they were judged by.",
        ),
        (
            "evaluation",
            ("candidate",),
            {"deltalake", "scikitlearn"},
            "The gate reads the differences: PASS refits on all mature rows, anything else keeps the champion.",
        ),
        (
            "release",
            ("evaluation",),
            {"mlflow"},
            "Who answers from when on: rows of the ledger; MLflow's aliases are their projection.",
        ),
    )
    return [
        service_asset(
            service,
            name,
            loop=LOOP,
            deps=[key_of(service, upstream) for upstream in above],
            kinds=kinds,
            is_daily=False,
            description=words,
        )
        for name, above, kinds, words in chain
    ]
