"""The parcel service whose versions somebody has to sign, under the clock of its own days."""

from datetime import timedelta

from toy_world import FIRST, a_service

TRAINING_DAY = FIRST + timedelta(days=9)
"""The Sunday on which the first training is due."""

parcels = a_service(
    model=a_service().model.model_copy(update={"approval": "sign_off", "first_training": TRAINING_DAY}),
    clock="demo",
    last_day=FIRST + timedelta(days=20),
)
