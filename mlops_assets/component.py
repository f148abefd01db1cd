"""The YAML door: a ``defs.yaml`` of type ``mlops_assets.MLServiceComponent`` declares one service.

Its ``attributes`` are the fields of ``MLService``; a typo is reported with file, line and field by ``dg check yaml``.
"""

from dataclasses import dataclass
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel

from mlops_assets.build import build_definitions
from mlops_assets.service.service import MLService


@dataclass(frozen=True)
class MLServiceComponent(dg.Component):
    """A model in production with everything promised about it, as four loops of assets."""

    service: MLService

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """What stands under ``attributes``: the declaration itself."""
        return MLService

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What ``dg list components`` shows."""
        return dg.ComponentTypeSpec(description="A production ML service as four loops.", tags=["mlops"])

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> Self:
        """The declaration with its ``{{ env.X }}`` filled in, and checked again."""
        given = attributes.model_dump() if isinstance(attributes, BaseModel) else {}
        return cls(MLService.model_validate(context.resolution_context.resolve_value(given)))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The same definitions as ``build_definitions([service])``."""
        return build_definitions([self.service])
