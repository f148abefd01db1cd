"""What ``dagster dev`` loads: the services of the package's examples, or the ones that ``MLOPS_SERVICES`` names."""

import dagster as dg

from mlops_assets.build import build_definitions
from mlops_assets.services import find_services


@dg.definitions
def defs() -> dg.Definitions:
    """Every declared service."""
    return build_definitions(list(find_services().values()))
