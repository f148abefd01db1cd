"""The YAML door leads to the same definitions as the Python one."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml
from pydantic import ValidationError
from toy_world import a_service

from mlops_assets.build import build_definitions
from mlops_assets.component import MLServiceComponent


def keys(defs: dg.Definitions) -> set[dg.AssetKey]:
    return set(defs.resolve_asset_graph().get_all_asset_keys())


def test_a_service_written_as_yaml_gives_the_same_assets() -> None:
    written = yaml.safe_dump(a_service().model_dump(mode="json"))
    component = MLServiceComponent.from_attributes_dict(attributes=yaml.safe_load(written))
    assert component.service == a_service()
    assert keys(dg.build_defs_for_component(component)) == keys(build_definitions([a_service()]))


def test_a_misspelt_field_is_refused_by_its_name() -> None:
    attributes = a_service().model_dump(mode="json") | {"purpouse": "typo"}
    with pytest.raises(ValidationError, match="purpouse"):
        MLServiceComponent.from_attributes_dict(attributes=attributes)
