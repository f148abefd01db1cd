"""The YAML door leads to the same definitions as the Python one."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from pydantic import ValidationError
from toy_world import a_service

import mlops_assets
from mlops_assets.build import build_definitions
from mlops_assets.component import MLServiceComponent
from mlops_assets.errors import DeclarationError


def keys(defs: dg.Definitions) -> set[dg.AssetKey]:
    return set(defs.resolve_asset_graph().get_all_asset_keys())


def test_a_service_written_as_yaml_gives_the_same_assets() -> None:
    written = yaml.safe_dump(a_service().model_dump(mode="json"))
    component = MLServiceComponent.from_attributes_dict(attributes=yaml.safe_load(written))
    assert component.service == a_service()
    assert keys(dg.build_defs_for_component(component)) == keys(build_definitions([a_service()]))


def test_a_defs_yaml_names_the_component_by_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``dg`` reads it: a folder with a ``defs.yaml``, whose type is looked up by its name."""
    folder = tmp_path / "shop_project" / "defs" / "parcels"
    folder.mkdir(parents=True)
    for package in (folder.parent.parent, folder.parent):
        (package / "__init__.py").touch()
    written = {"type": "mlops_assets.MLServiceComponent", "attributes": a_service().model_dump(mode="json")}
    (folder / "defs.yaml").write_text(yaml.safe_dump(written))
    (tmp_path / "pyproject.toml").write_text("[tool.dg]\ndirectory_type = 'project'\n")
    monkeypatch.syspath_prepend(tmp_path)
    tree = dg.ComponentTree.from_module(defs_module=importlib.import_module("shop_project.defs"), project_root=tmp_path)
    assert keys(tree.build_defs()) == keys(build_definitions([a_service()]))


def test_the_package_offers_the_component_without_importing_dagster_before_somebody_asks() -> None:
    program = (
        "import sys, mlops_assets; "
        "assert 'MLServiceComponent' in dir(mlops_assets); assert 'dagster' not in sys.modules; "
        "from mlops_assets.component import MLServiceComponent; "
        "assert mlops_assets.MLServiceComponent is MLServiceComponent"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="module 'mlops_assets' has no attribute 'MLServiceComponents'"):
        _ = mlops_assets.MLServiceComponents


def test_a_misspelt_field_is_refused_by_its_name() -> None:
    attributes = a_service().model_dump(mode="json") | {"purpouse": "typo"}
    with pytest.raises(ValidationError, match="purpouse"):
        MLServiceComponent.from_attributes_dict(attributes=attributes)


@pytest.mark.parametrize("zone", ["Europe/Wien", "../etc", ""])
def test_a_time_zone_that_does_not_exist_is_refused_where_it_stands(zone: str) -> None:
    attributes = a_service().model_dump(mode="json") | {"timezone": zone}
    with pytest.raises(DeclarationError) as refused:
        MLServiceComponent.from_attributes_dict(attributes=attributes)
    assert str(refused.value) == (
        f"service > timezone: there is no time zone '{zone}'. "
        "Write a name of the IANA database, for instance 'Europe/Vienna'."
    )
