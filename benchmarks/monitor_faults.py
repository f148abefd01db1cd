"""The catalogue of faults that ``benchmarks/monitor.py`` injects: what goes wrong, how much, and in which columns.

A fault takes the rows of some days as the model would have seen them and gives them back broken. Everything random
comes from the generator that is handed in. The kinds that ``mlops backtest-policy`` does to stored profiles are among
them, by the same names and sizes; small lasting harm, which no feature shows, is in ``small_harm.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlops_assets.backtest.faults import SIZES

Rows = pd.DataFrame
Break = Callable[[Rows, str, float, np.random.Generator], Rows]

SCHEDULE = ("scheduled_hour", "distance_miles", "flights_same_hour_48h", "plane_age_years")
RATES = ("late_rate_carrier_168h", "late_rate_origin_24h", "departure_delay_origin_3h")
WEATHER = ("temperature_f", "dew_point_f", "wind_speed_mph", "pressure_hpa", "visibility_miles")
FEATURES = SCHEDULE + RATES + WEATHER


@dataclass(frozen=True)
class Fault:
    """One kind of fault. ``is_of_table``: it breaks whole rows, so any column may show it.

    ``is_measured``: one of the seven kinds that the design study measured. ``points``: how many rows of a hundred it
    takes away, if it is one of integrity. ``is_masked``: it begins with a known event that explains shifts of the same
    columns.
    """

    name: str
    breaks: Break
    columns: tuple[str, ...] = FEATURES
    is_of_table: bool = False
    is_measured: bool = False
    points: float = 0.0
    days: int = 7
    is_masked: bool = False


def shifted(stds: float) -> Break:
    """Every value moves by so many standard deviations of the month before."""
    return lambda rows, name, std, rng: rows.assign(**{name: rows[name] + stds * std})


def scaled(times: float, share: float = 1.0) -> Break:
    """A share of the values in another unit."""

    def broken(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
        hit = rng.random(len(rows)) < share
        return rows.assign(**{name: np.where(hit, rows[name] * times, rows[name])})

    return broken


def without(share: float) -> Break:
    """A share of the values is missing."""
    return lambda rows, name, std, rng: rows.assign(**{name: rows[name].mask(rng.random(len(rows)) < share)})


def stuck(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """The first value of the first day, all the time."""
    first = rows[name].dropna()
    return rows.assign(**{name: rows[name].where(rows[name].isna(), first.iloc[0] if len(first) else 0.0)})


def zeroed(share: float) -> Break:
    """A share of the values is zero."""
    return lambda rows, name, std, rng: rows.assign(**{name: rows[name].mask(rng.random(len(rows)) < share, 0.0)})


def ramped(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """From nothing to one standard deviation over the days."""
    days = rows["day"].rank(method="dense")
    return rows.assign(**{name: rows[name] + std * days / days.max()})


def clipped(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """A sensor that saturates: nothing above the median of the first day."""
    return rows.assign(**{name: rows[name].clip(upper=rows[name].median())})


def later(hours: int) -> Break:
    """Local times read in another zone."""
    return lambda rows, name, std, rng: rows.assign(**{name: (rows[name] + hours) % 24})


def renamed(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """The most frequent code is spelt anew."""
    return rows.assign(**{name: rows[name].where(rows[name] != rows[name].mode().iloc[0], "X-1")})


def mixed_up(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """Two codes are swapped."""
    first, second = rows[name].value_counts().index[[0, -1]]
    return rows.assign(**{name: rows[name].replace({first: second, second: first})})


def halved_code(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """Half of the most frequent code becomes the second most frequent one."""
    first, second = rows[name].value_counts().index[:2]
    return rows.assign(**{name: rows[name].mask((rows[name] == first) & (rng.random(len(rows)) < 0.5), second)})


def thinned(share: float) -> Break:
    """Only a share of the rows arrived."""
    return lambda rows, name, std, rng: rows[rng.random(len(rows)) < share]


def doubled(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """A join that finds two partners for a third of the rows."""
    return pd.concat([rows, rows[rng.random(len(rows)) < 1 / 3]])


def halved(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """The second half of the day had not arrived."""
    return rows[rows["scheduled_hour"] < 14]


def cut_off(rows: Rows, name: str, std: float, rng: np.random.Generator) -> Rows:
    """Nothing after six in the evening."""
    return rows[rows["scheduled_hour"] < 18]


CATALOGUE = (
    Fault("shift 0.5 sd", shifted(SIZES["shift 0.5 sd"]), is_measured=True),
    Fault("shift 1 sd", shifted(SIZES["shift 1 sd"]), is_measured=True),
    Fault("unit x1.6", scaled(SIZES["unit x1.6"]), is_measured=True),
    Fault("null 3 %", without(SIZES["null 3 %"]), is_measured=True, points=3),
    Fault("null 20 %", without(SIZES["null 20 %"]), is_measured=True, points=20),
    Fault("stuck", stuck, is_measured=True),
    Fault("10 % zeros", zeroed(0.10), is_measured=True),
    Fault("null 6 %", without(SIZES["null 6 %"]), points=6),
    Fault("x10 on 5 %", scaled(10.0, 0.05)),
    Fault("sign flip", scaled(SIZES["sign flip"])),
    Fault("ramp to 1 sd in 14 d", ramped, days=14),
    Fault("sensor saturates", clipped, columns=RATES + WEATHER),
    Fault("time zone +1 h", later(1), columns=("scheduled_hour",)),
    Fault("time zone +4 h", later(4), columns=("scheduled_hour",)),
    Fault("category renamed", renamed, columns=("carrier_code", "origin_code"), points=15),
    Fault("categories swapped", mixed_up, columns=("carrier_code", "origin_code")),
    Fault("null 20 % in an event", without(SIZES["null 20 %"]), columns=SCHEDULE, points=20, days=3, is_masked=True),
    Fault("unit x1.6 in an event", scaled(SIZES["unit x1.6"]), columns=SCHEDULE, days=3, is_masked=True),
    Fault("categories mixed", halved_code, columns=("carrier_code", "origin_code")),
    Fault("a third missing", thinned(SIZES["a third missing"]), columns=("rows",), is_of_table=True),
    Fault("join fan-out", doubled, columns=("rows",), is_of_table=True),
    Fault("late half-day", halved, columns=("rows",), is_of_table=True),
    Fault("cut off at 18:00", cut_off, columns=("rows",), is_of_table=True),
)
