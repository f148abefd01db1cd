"""What the champion of a day learned from, added up from the profiles of its training window."""

from collections.abc import Mapping
from datetime import date

from mlops_assets.adapters.engine import literal, open_engine, rows
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.block import Block
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.since_training import Training, learned_columns
from mlops_assets.tables import BY_NAME

_kept: dict[tuple[str, str, str], Training | None] = {}
"""A training window never changes once its model is released: added up once per process."""


def trainings_of(world: World, block: Block) -> Mapping[date, Training]:
    """What the champion of each of the block's days learned from; days without a champion are left out."""
    releases = {row["model_version"]: row for row in world.releases() if row["role"] == "champion"}
    found: dict[date, Training] = {}
    for day, version in rows(block.con, champions_sql()):
        if version in releases and day in block.days:
            training = _training(world, releases[version])
            if training is not None:
                found[day] = training
    return found


def champions_sql() -> str:
    """SQL of the model version that answers for each day."""
    return "select day, model_version from roles where model_version is not null order by day"


def window_sql(fingerprint: str) -> str:
    """SQL of the first and last prediction day of a training set."""
    return f"select min(prediction_day), max(prediction_day) from snapshot where fingerprint = {literal(fingerprint)}"


def _training(world: World, release: Row) -> Training | None:
    key = (str(world.home.path), release["model_version"], release["fingerprint"])
    if key not in _kept:
        _kept[key] = _added_up(world, release)
    return _kept[key]


def _added_up(world: World, release: Row) -> Training | None:
    day = release["day"]
    with open_engine() as con:
        snapshot, profiles = BY_NAME["training_set"], BY_NAME["profiles"]
        world.lake.view(con, snapshot.name, snapshot.columns, name="snapshot", first=day, last=day)
        ((first, last),) = rows(con, window_sql(release["fingerprint"]))
        if first is None:
            return None
        world.lake.view(con, profiles.name, profiles.columns, name="window_profiles", first=first, last=last)
        columns = learned_columns(con, profiles="window_profiles", feature_version=release["feature_version"])
    return Training(release["model_version"], first, last, columns)
