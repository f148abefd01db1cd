"""``mlops backtest-policy``: what another policy would have done."""

import json
from datetime import date
from pathlib import Path

import click

from mlops_assets.cli_options import DAY, FORMATS, world_of


@click.command("backtest-policy")
@click.argument("service")
@click.option("--policy", required=True, type=click.Path(path_type=Path), help="YAML: what to declare otherwise.")
@click.option("--from", "first", type=DAY, help="First closed day. Default: the first one there is.")
@click.option("--to", "last", type=DAY, help="Last closed day. Default: the last one there is.")
@click.option("--dates", default=2, show_default=True, help="Random dates per injected fault; 0: inject none.")
@click.option("--seed", default=1, show_default=True, help="Of the random dates.")
@click.option(
    "--train", "is_trained", is_flag=True, help="Train what would have been trained, in a copy; takes a replay."
)
@click.option("--format", "shape", type=FORMATS, default="table", show_default=True)
def backtest_policy(
    service: str,
    policy: Path,
    first: date | None,
    last: date | None,
    dates: int,
    seed: int,
    is_trained: bool,
    shape: str,
) -> None:
    """What a drift, quality or retraining policy would have done over closed days, beside the declared one.

    Nothing is changed. FILE has sections drift, quality, model, incidents with the fields that the declaration has;
    what it does not name stays as declared. Printed are alarms, incidents, retrainings, quality, cost, injected faults
    that would be seen, and the smallest shift of each feature that would be.

    \b
    Example: mlops backtest-policy flight_delays --policy weekly.yaml --from 2013-04-01 --to 2013-08-31
    weekly.yaml:
      model: {cadence: weekly}
      drift: {min_distance: 0.15, alarm_budget: {tier2_a_quarter: 3}}
    """
    from mlops_assets.backtest.run import Asked, backtest
    from mlops_assets.backtest.words import as_object, lines
    from mlops_assets.display import counting

    found = backtest(world_of(service), Asked(policy, first, last, dates, seed, is_trained), counting)
    if shape == "json":
        click.echo(json.dumps(as_object(found), indent=2, default=str))
        return
    for line in lines(found):
        click.echo(line)
