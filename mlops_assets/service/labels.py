"""Label definitions: how an outcome in the world becomes the truth about a prediction."""

import hashlib
from datetime import date, timedelta
from typing import Literal

from pydantic import model_validator

from mlops_assets.service.policy import Hours, Identifier, Policy


class LabelDefinition(Policy):
    """An outcome read through one definition, attributed to a request.

    ``attribution``: *same_request*, the one that ``request_id`` (an expression over a row of ``source``) names; or one
    request of the same ``entity`` (an expression; ``request_entity`` is the request's column) within the window before
    the outcome: the *first*, the *last*, or the *nearest*, which may also lie after the outcome where two systems'
    clocks disagree. An outcome counts once. ``needs_decision``: only what was decided positively ever gets a label (a
    loan that was granted); the share of such labels is measured. ``kpi``: what an outcome is worth, an expression over
    a row of ``source``; labels per KPI are watched, because a label that changed its meaning upstream leaves it.

    A changed meaning is a new ``version``. Old and new stand side by side in ``MLService.label``, the one in force
    first; one with ``effective_from`` reads what is told from that day on and counts for predictions from then on.

    ``value`` is a boolean (or numeric) SQL expression over a row of ``source``. An outcome counts only if its
    ``event_at`` is at most ``window_hours`` after ``predicted_at``; a request without one is never labelled
    and is left out of quality and training: ``never_labelled`` says in words what such requests are.
    """

    version: Identifier
    source: Identifier
    request_id: str | None = None
    value: str
    window_hours: Hours
    never_labelled: str
    attribution: Literal["same_request", "first", "last", "nearest"] = "same_request"
    entity: str | None = None
    request_entity: Identifier | None = None
    needs_decision: bool = False
    kpi: str | None = None
    effective_from: date | None = None

    @property
    def window(self) -> timedelta:
        """Length of the label window."""
        return timedelta(hours=self.window_hours)

    @property
    def meaning(self) -> dict[str, str]:
        """What makes a label mean what it means, field by field; another one needs another version."""
        fields = ("source", "request_id", "value", "window_hours", "attribution", "entity", "request_entity")
        return {field: str(getattr(self, field)) for field in (*fields, "effective_from")}

    @property
    def fingerprint(self) -> str:
        """Hash of the meaning."""
        return hashlib.sha256(repr(sorted(self.meaning.items())).encode()).hexdigest()[:12]

    @property
    def expressions(self) -> dict[str, str]:
        """Field -> expression over a row of the source, for the check of names."""
        named = {"request_id": self.request_id, "value": self.value, "entity": self.entity, "kpi": self.kpi}
        return {field: text for field, text in named.items() if text is not None}

    @model_validator(mode="after")
    def _attribution_has_what_it_needs(self) -> "LabelDefinition":
        by_request = self.attribution == "same_request"
        if by_request and self.request_id is None:
            raise ValueError(f"label '{self.version}': name the request_id of an outcome, or attribute it by entity")
        if not by_request and (self.entity is None or self.request_entity is None):
            raise ValueError(
                f"label '{self.version}': attribution '{self.attribution}' needs entity (of the outcome) and "
                "request_entity (of the request)"
            )
        return self
