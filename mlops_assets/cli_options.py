"""What several commands of ``mlops`` share: days, output formats, and the service they are about."""

from datetime import date
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mlops_assets.closing.world import World


class Day(click.ParamType[date]):
    """A business day, ``YYYY-MM-DD``."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """The day that a text names."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is not a day; write it as 2013-07-01.", param, ctx)


DAY = Day()
FORMATS = click.Choice(["table", "json"])


def world_of(name: str) -> "World":
    """A declared service with its stores, in the home that the environment names."""
    from mlops_assets.adapters.home import Home
    from mlops_assets.closing.world import World
    from mlops_assets.services import find_service

    return World(find_service(name), Home.from_environment())
