"""The home: every folder and store that a service needs, made once."""

from collections.abc import Iterator, Sequence

from mlops_assets.adapters.home import Home
from mlops_assets.closing.world import World
from mlops_assets.service.service import MLService


def prepare_home(home: Home, services: Sequence[MLService]) -> Iterator[str]:
    """Make what is not there yet; yields one line per part."""
    from mlops_assets.adapters.dagster_home import prepare_dagster_home

    for folder in (home.path, home.landing, home.tables, home.artifacts, home.path / "logs"):
        is_new = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        yield f"{'made' if is_new else 'there':<6} {folder}"
    is_new = not (home.dagster / "dagster.yaml").is_file()
    prepare_dagster_home(home)
    yield f"{'made' if is_new else 'there':<6} {home.dagster}"
    for service in services:
        world = World(service, home)
        yield f"ready  ledger of {service.name}, epoch {world.ledger.epoch(service.name)}"
        if service.is_monitor_only:
            continue
        _registry = world.registry
        yield f"ready  MLflow experiment and registered model {world.registered_name}"
