"""Who answers for the service, and who may decide what."""

from pydantic import Field

from mlops_assets.service.policy import Policy


class Owner(Policy):
    """The person (not a team) who answers for the service end to end."""

    name: str = Field(min_length=1)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")


class Duty(Policy):
    """Who is responsible, accountable, consulted and informed for one kind of change."""

    responsible: str
    accountable: str
    consulted: tuple[str, ...] = ()
    informed: tuple[str, ...] = ()


class Raci(Policy):
    """The four kinds of change that need a name before they happen."""

    model_updates: Duty
    schema_changes: Duty
    retraining_cadence: Duty
    incident_response: Duty
