"""The command line ``mlops``: every command says what it did, and fails with one sentence.

Importing this module is quick; what a command needs is imported when it runs.
"""

import json
import os
import sys
from datetime import date
from typing import TYPE_CHECKING

import click

from mlops_assets.cli_backtest import backtest_policy
from mlops_assets.cli_options import DAY, FORMATS, say, world_of, worlds_of
from mlops_assets.cli_people import VERBS
from mlops_assets.errors import MlopsError

if TYPE_CHECKING:
    from mlops_assets.adapters.people_sql import Answer as Rows

INTERRUPTED = 130
LOOPBACK = ("127.0.0.1", "localhost")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--service-module",
    envvar="MLOPS_SERVICES",
    help="Services as package.module:attribute, comma separated. Default: the examples of the package.",
)
def cli(service_module: str | None) -> None:
    """Run and ask the four loops of production machine learning.

    Everything lives in $MLOPS_HOME (default: .mlops in this folder).

    \b
    Example: mlops replay flight_delays --to 2013-01-31
    """
    if service_module:
        os.environ["MLOPS_SERVICES"] = service_module


for verb in VERBS:
    cli.add_command(verb)


@cli.command()
def init() -> None:
    """Make the home: folders, ledger, MLflow store, Dagster settings. Safe to repeat.

    \b
    Example: mlops init
    """
    from mlops_assets.adapters.home import Home
    from mlops_assets.homestead import prepare_home
    from mlops_assets.services import find_services

    for line in prepare_home(Home.from_environment(), list(find_services().values())):
        say(line)


@cli.command()
@click.argument("service", required=False)
def check(service: str | None) -> None:
    """Load the declarations, contracts and model factories; show what was promised. Writes nothing.

    \b
    Example: mlops check flight_delays
    """
    from mlops_assets.promises import promises, uncovered, warnings

    for world in worlds_of(service, is_asked=False):
        say(world.name)
        for what, words in promises(world):
            say(f"  {what:<19} {words}")
        for warning in warnings(world):
            say(f"  warning: {warning}")
        for gap in uncovered(world):
            say(f"  gap: {gap.in_words()}")


@cli.command()
@click.argument("service")
@click.option("--from", "first", type=DAY, help="First day; closed ones are skipped. Default: the first unclosed day.")
@click.option("--to", "last", type=DAY, help="Last day. Default: the last day of the service's data.")
@click.option("--redo-from", type=DAY, help="Re-decide from this closed day on, in a new epoch; needs --by.")
@click.option("--by", help="Who asks for the redo; kept in the ledger.")
@click.option("--wait-seconds", default=300.0, show_default=True, help="How long to wait for another writer.")
def replay(
    service: str,
    first: date | None,
    last: date | None,
    redo_from: date | None,
    by: str | None,
    wait_seconds: float,
) -> None:
    """Close day after day in order, deciding and acting as the daily run would have done.

    Stopped or killed, the same command goes on at the first unclosed day.

    \b
    Example: mlops replay flight_delays --from 2012-12-31 --to 2013-12-21
    """
    from mlops_assets.replay import replay_service

    if redo_from and not by:
        raise click.UsageError("--redo-from re-decides history; say who asks for it with --by NAME.")
    if redo_from and first:
        raise click.UsageError("--redo-from says where to start; leave --from out.")
    replay_service(
        world_of(service, is_asked=False),
        first=first,
        last=last,
        redo_from=redo_from,
        by=by or "",
        wait_seconds=wait_seconds,
        say=say,
    )


@cli.command()
@click.argument("service", required=False)
@click.option("--as-of", type=DAY, help="As it stood at the end of this day. Default: the last closed day.")
@click.option("--incident", help="The playbook of this open incident instead, filled in with its facts.")
@click.option("--chart", help="One daily series instead, with what changed as marks: a column, quality:brier, rows.")
@click.option("--format", "shape", type=FORMATS, default="table", show_default=True)
def status(service: str | None, as_of: date | None, incident: str | None, chart: str | None, shape: str) -> None:
    """What is closed, who answers, what is open, and what the next day waits for.

    \b
    Example: mlops status flight_delays --as-of 2013-07-01
    """
    from mlops_assets.status import open_incident_page, series_chart, status_lines, status_of

    if incident:
        say(open_incident_page(worlds_of(service), incident, as_of))
        return
    if chart:
        for world in worlds_of(service):
            say(series_chart(world, chart, as_of))
        return
    found = [status_of(world, as_of) for world in worlds_of(service)]
    if shape == "json":
        say(json.dumps(found[0] if service else found, indent=2))
        return
    for one in found:
        for line in status_lines(one):
            say(line)


@cli.command()
@click.argument("query")
@click.option("--format", "shape", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--open", "is_open", is_flag=True, help="Also what is not closed yet.")
def sql(query: str, shape: str, is_open: bool) -> None:
    """Ask every table with DuckDB SQL; only closed days, and nothing can be changed.

    Tables are <service>.<table>, sources.<source>, and <service>.outcomes_as_of(DATE).

    \b
    Example: mlops sql "select day, verdict, reason from flight_delays.verdicts order by day desc limit 7"
    """
    from mlops_assets.adapters.home import Home
    from mlops_assets.adapters.people_sql import ask
    from mlops_assets.services import find_services

    answer = ask(list(find_services().values()), Home.existing(), query, is_open=is_open)
    say({"json": as_json, "csv": as_csv, "table": as_table}[shape](answer))


def as_json(answer: "Rows") -> str:
    """A list of row objects."""
    return json.dumps(answer.objects(), ensure_ascii=False)


def as_csv(answer: "Rows") -> str:
    """A header line and one line per row."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(row.values() for row in answer.objects())
    return text.getvalue().rstrip("\n")


def as_table(answer: "Rows") -> str:
    """Columns under each other; numbers to the right."""
    cells = [["" if value is None else str(value) for value in row] for row in answer.rows]
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(answer.columns)]
    is_number = [all(isinstance(row[i], int | float | None) for row in answer.rows) for i in range(len(answer.columns))]

    def line(values: list[str]) -> str:
        placed = zip(values, widths, is_number, strict=True)
        return "  ".join(f"{v:>{width}}" if right else f"{v:<{width}}" for v, width, right in placed).rstrip()

    rule = ["-" * width for width in widths]
    return "\n".join([line(list(answer.columns)), line(rule), *map(line, cells), f"({len(cells):,} rows)"])


@cli.command()
@click.argument("request_id")
@click.option("--service", help="Look in this service only. Default: in all of them.")
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", show_default=True)
def explain(request_id: str, service: str | None, shape: str) -> None:
    """The story of one prediction: source rows, features, model, score, labels, metrics, incidents.

    \b
    Example: mlops explain 2013-07-01-UA-1001-EWR
    """
    from mlops_assets.explain import explain_request, story_lines

    story = explain_request(worlds_of(service), request_id)
    if shape == "json":
        say(json.dumps(story, indent=2, default=str))
        return
    for line in story_lines(story):
        say(line)


@cli.command()
@click.argument("service", required=False)
def recover(service: str | None) -> None:
    """Repair what a killed run left behind, and say what was repaired. Safe to repeat.

    \b
    Example: mlops recover flight_delays
    """
    from mlops_assets.replay import recover_all

    for world in worlds_of(service):
        lines = recover_all(world)
        for line in lines or ["nothing to repair"]:
            say(f"{world.name}: {line}")


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Dagster's page; the next free port if taken.")
@click.option("--mlflow-port", default=5000, show_default=True, help="MLflow's page; the next free port if taken.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--i-have-a-login-in-front", "is_guarded", is_flag=True, help="Allow an address others can reach.")
def ui(port: int, mlflow_port: int, host: str, is_guarded: bool) -> None:
    """Open the Dagster and MLflow pages; Ctrl-C ends both.

    \b
    Example: mlops ui --port 3000
    """
    from mlops_assets.adapters.home import Home
    from mlops_assets.pages import serve_pages
    from mlops_assets.services import find_services

    if host not in LOOPBACK and not is_guarded:
        raise click.UsageError(
            f"{host} can be reached by others and neither page asks for a password. "
            "Put a login in front, then add --i-have-a-login-in-front."
        )
    serve_pages(
        Home.from_environment(),
        list(find_services().values()),
        host=host,
        port=port,
        mlflow_port=mlflow_port,
        say=say,
    )


cli.add_command(backtest_policy)


def main() -> None:
    """Entry point: an error raised on purpose is one sentence and exit code 1; Ctrl-C is 130."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; run the same command again to go on", err=True)
        sys.exit(INTERRUPTED)
    except MlopsError as error:
        said = str(error)
        click.echo(said if said.startswith("mlops") else f"mlops: {said}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, say) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
