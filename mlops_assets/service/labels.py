"""Label definitions: how an outcome in the world becomes the truth about a prediction."""

from datetime import timedelta

from mlops_assets.service.policy import Hours, Identifier, Policy


class LabelDefinition(Policy):
    """An outcome read through one definition, attributed to the request of the same id.

    ``value`` is a boolean (or numeric) SQL expression over a row of ``source``. An outcome counts only if its
    ``event_at`` is at most ``window_hours`` after ``predicted_at``; a request without one is never labelled
    and is left out of quality and training: ``never_labelled`` says in words what such requests are.
    """

    version: Identifier
    source: Identifier
    request_id: str
    value: str
    window_hours: Hours
    never_labelled: str

    @property
    def window(self) -> timedelta:
        """Length of the label window."""
        return timedelta(hours=self.window_hours)
