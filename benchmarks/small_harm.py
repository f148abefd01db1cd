"""Does a small lasting harm surface that no day shows? Seeded, over the stored ``quality`` of a replayed home.

Takes the champion's and the fallback's loss of every mature day of the flights (``MLOPS_HOME``), lets the champion lose
a share of its usual loss more on every day from a random day on, for eight weeks, and asks the harm monitor every day::

    python benchmarks/small_harm.py --episodes 40 --seed 1

Prints per size: how often it was found within four and eight weeks, after how many days, and how often one of those
days alone would have been a surprise of three standard deviations of the differences of the weeks before; and how
often the monitor spoke on the year as it was. Writes nothing.
"""

import argparse
from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np

from mlops_assets.adapters.engine import frame, open_engine
from mlops_assets.adapters.home import Home
from mlops_assets.closing.world import World
from mlops_assets.examples.flight_delays.service import flight_delays
from mlops_assets.monitoring_loop.evidence import CHAMPION, FALLBACK, Evidence, Known, asked_for_harm
from mlops_assets.monitoring_loop.harm import watch_harm
from mlops_assets.service.degradation import HarmMonitor
from mlops_assets.tables import BY_NAME

LOSS = "brier"
HARM_DAYS = 56
SHARES = (0.0, 0.02, 0.05, 0.1)


def losses_sql(role: str) -> str:
    """SQL of the newest value of every mature day."""
    return f"""
        select prediction_day as day, arg_max(value, day) as loss from quality
        where role = '{role}' and slice = 'all' and metric = '{LOSS}' and window_days = 1
          and state in ('final', 'restated') and value is not null
        group by 1 order by 1
    """


def read(world: World) -> tuple[dict[date, float], dict[date, float]]:
    """Loss of champion and fallback per mature day."""
    with open_engine() as con:
        world.lake.view(con, "quality", BY_NAME["quality"].columns)
        both = (frame(con, losses_sql(role)) for role in (CHAMPION, FALLBACK))
        champion, fallback = ({row.day.date(): float(row.loss) for row in rows.itertuples()} for rows in both)
    return champion, fallback


def speaks(monitor: HarmMonitor, champion: Mapping[date, float], fallback: Mapping[date, float], day: date) -> bool:
    """Whether the monitor asks for somebody when ``day`` has just matured."""
    first = day - timedelta(days=monitor.days)
    asked = zip(asked_for_harm(LOSS), (champion, fallback), strict=False)
    series = {who: {d: Known(v, v, v, 300, 1.0) for d, v in of.items() if first <= d <= day} for who, of in asked}
    found = watch_harm(monitor, LOSS, Evidence(day + timedelta(days=2), day, series))
    return any(one.state == "broken" for one in found)


def shows(champion: Mapping[date, float], fallback: Mapping[date, float], start: date, day: date) -> bool:
    """Whether a day alone is three standard deviations above the differences of the 28 days before the harm."""
    before = [champion[d] - fallback[d] for d in champion if start - timedelta(days=28) <= d < start and d in fallback]
    return champion[day] - fallback[day] > np.mean(before) + 3 * np.std(before, ddof=1)


def main() -> None:
    """Inject, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    monitor = HarmMonitor()
    champion, fallback = read(World(flight_delays, Home.from_environment()))
    days = sorted(set(champion) & set(fallback))
    level = float(np.mean([champion[day] for day in days]))
    rng = np.random.default_rng(asked.seed)
    starts = rng.integers(monitor.min_days + 7, len(days) - HARM_DAYS, asked.episodes)
    spoke = [day for day in days[monitor.min_days :] if speaks(monitor, champion, fallback, day)]
    print(f"{len(days)} mature days, mean {LOSS} {level:.4f}; on the year as it was it spoke on {len(spoke)} days")
    print(f"{'harm, share of the loss':<26}{'4 weeks':>9}{'8 weeks':>9}{'mean days':>11}{'a day alone shows it':>22}")
    for share in SHARES:
        delays, alone = [], 0
        for start in starts:
            hit = days[start : start + HARM_DAYS]
            worse = champion | {day: champion[day] + share * level for day in hit}
            delays.append(next((n for n, day in enumerate(hit, 1) if speaks(monitor, worse, fallback, day)), None))
            alone += sum(shows(worse, fallback, days[start], day) for day in hit)
        found = [delay for delay in delays if delay is not None]
        mean = f"{np.mean(found):.0f}" if found else "-"
        within = [sum(delay <= limit for delay in found) / len(delays) for limit in (28, HARM_DAYS)]
        print(f"{share:<26.0%}{within[0]:>9.2f}{within[1]:>9.2f}{mean:>11}{alone / len(delays) / HARM_DAYS:>21.1%}")


if __name__ == "__main__":
    main()
