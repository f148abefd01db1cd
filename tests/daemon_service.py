"""The parcel service as a real daemon runs it: a day of its clock takes seconds, and it trains on its last day."""

from datetime import date

from toy_world import a_service

LAST = date(2024, 3, 17)
"""A Sunday: the first training is due, and the scans of the day never come."""

parcels = a_service(
    model=a_service().model.model_copy(update={"first_training": LAST}),
    last_day=LAST,
    clock="demo",
    demo_day_seconds=5,
    schedule_cron="* * * * *",
)
