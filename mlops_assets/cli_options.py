"""What the commands of ``mlops`` share: days, the services they are about, and what a person says with a name."""

from collections.abc import Callable
from datetime import date
from functools import wraps
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


def say(line: str) -> None:
    """One line for people."""
    click.echo(line)


def world_of(name: str, *, is_asked: bool = True) -> "World":
    """A declared service with its stores, in the home that the environment names.

    Args:
        is_asked: the home must be there already: who only asks, or speaks about what is there, makes none.

    Raises:
        HomeError: it is not there.
        UnknownNameError: no service has this name.
    """
    from mlops_assets.adapters.home import Home
    from mlops_assets.closing.world import World
    from mlops_assets.services import find_service

    service = find_service(name)
    return World(service, Home.existing() if is_asked else Home.from_environment())


def worlds_of(name: str | None, *, is_asked: bool = True) -> list["World"]:
    """One service, or every declared one."""
    from mlops_assets.services import find_services

    return [world_of(one, is_asked=is_asked) for one in ([name] if name else sorted(find_services()))]


def verb(argument: str, *, needs_reason: bool = True) -> Callable[[Callable[..., str]], click.Command]:
    """A command by which a named person says something about one thing; what its body returns is shown.

    The body gets ``by``, ``reason`` and ``is_dry_run`` beside its own options. With ``--dry-run`` it writes nothing.
    """

    def made(body: Callable[..., str]) -> click.Command:
        @wraps(body)
        def spoken(by: str, reason: str, dry_run: bool, **given: Any) -> None:
            say(body(by=by, reason=reason, is_dry_run=dry_run, **given))

        options = (
            click.option("--dry-run", is_flag=True, help="Say what would happen, and write nothing."),
            click.option("--reason", required=needs_reason, default=None if needs_reason else "",
                         help="Why; kept in the ledger."),
            click.option("--by", required=True, help="Your name; kept in the ledger."),
            click.argument(argument),
        )  # fmt: skip
        command: Callable[..., None] = spoken
        for option in options:
            command = option(command)
        return click.command()(command)

    return made
