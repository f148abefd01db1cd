"""Label definitions: how an outcome in the world becomes the truth about a prediction."""

import hashlib
from datetime import date, timedelta
from math import ceil
from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Hours, Identifier, Policy, Share
from mlops_assets.service.tasks import SPLITS_AT


class LabelNoise(Policy):
    """How often a label is wrong: shares that were estimated elsewhere, or labels that were given a second time.

    ``wrong_positive_share`` of the true negatives are labelled positive, ``wrong_negative_share`` of the true
    positives negative. Of several classes ``confusion`` has a row per true class and a column per labelled one,
    both in the order of ``classes``, each row adding up to 1. ``audited_by`` names another label version of the
    service in their place: a sample of the same requests labelled again, with care. The shares are estimated every
    day from the requests that have both, over the days that ``quality`` has at hand; they are right if the second
    reading is, and if a request was chosen for it whatever its first label says. ``source`` says where the numbers,
    or the second reading, come from.
    """

    wrong_positive_share: Share | None = None
    wrong_negative_share: Share | None = None
    confusion: tuple[tuple[Share, ...], ...] = ()
    audited_by: Identifier | None = None
    min_audited: int = Field(default=30, ge=2, description="Fewest second readings of each outcome.")
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _labels_say_something(self) -> "LabelNoise":
        shares = (self.wrong_positive_share, self.wrong_negative_share)
        if self.confusion:
            self._check_confusion()
            if self.audited_by is not None or shares != (None, None):
                raise ValueError("noise: confusion says it all; leave out the other shares and audited_by")
            return self
        if (None in shares) == (self.audited_by is None) or (self.audited_by and shares != (None, None)):
            raise ValueError(
                "noise: declare both wrong_positive_share and wrong_negative_share, or audited_by, the label version "
                "of a second reading"
            )
        if sum(share or 0.0 for share in shares) >= 1:
            raise ValueError(
                f"wrong_positive_share {self.wrong_positive_share:g} and wrong_negative_share "
                f"{self.wrong_negative_share:g} add up to 1 or more: such labels say nothing; name the shares of "
                "wrong labels, not of right ones"
            )
        return self

    def _check_confusion(self) -> None:
        rows, size = self.confusion, len(self.confusion)
        for place, row in enumerate(rows):
            if len(row) != size or abs(sum(row) - 1) > 1e-6:
                raise ValueError(
                    f"noise: row {place + 1} of confusion has {len(row)} shares that add up to {sum(row):g}; a row has "
                    f"one share per class ({size}) and adds up to 1"
                )
            if row[place] <= 0.5:
                raise ValueError(
                    f"noise: row {place + 1} of confusion says that {row[place]:g} of the labels of a class are right: "
                    "such labels say too little; more than half must be"
                )


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

    ``value`` is an SQL expression over a row of ``source``: yes or no, a number, the gain of a ranked row, or, where
    ``classes`` are declared, the text of one of them (stored as its place among them, from 0; -1: none of them). An
    outcome counts only if its ``event_at`` is at most ``window_hours`` after ``predicted_at``; a request without one is
    never labelled: ``never_labelled`` says in words what such requests are, and ``unlabelled`` what they count as once
    the window is over: left out of quality and training, or negative (a click, a claim: only the positive outcome is
    ever reported). ``prior_completeness`` is the share of the labels known at age 0, 1, ... days, for the time in which
    too few days are past the window to estimate it. ``splits_at``: numbers above it and the others arrive at speeds of
    their own (unless it is declared: at .5 for yes or no, at 0 for gains, and all numbers and classes share one curve).
    ``tolerance``: numbers that differ by at most this, in their unit, are the same where two definitions are compared.
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
    unlabelled: Literal["left_out", "negative"] = "left_out"
    prior_completeness: tuple[Share, ...] = ()
    noise: LabelNoise | None = None
    classes: tuple[str, ...] = ()
    splits_at: float | None = SPLITS_AT["binary"]
    tolerance: float = Field(default=0.0, ge=0)

    def suiting(self, task: str) -> "LabelDefinition":
        """The same definition, with what was not declared as the task has it."""
        if "splits_at" in self.model_fields_set:
            return self
        return self.model_copy(update={"splits_at": SPLITS_AT[task]})

    @property
    def window(self) -> timedelta:
        """Length of the label window."""
        return timedelta(hours=self.window_hours)

    @property
    def meaning(self) -> dict[str, str]:
        """What makes a label mean what it means, field by field; another one needs another version."""
        fields = ("source", "request_id", "value", "window_hours", "attribution", "entity", "request_entity")
        meaning = {field: str(getattr(self, field)) for field in (*fields, "effective_from")}
        meaning |= {"classes": str(self.classes)} if self.classes else {}
        return meaning | ({"unlabelled": self.unlabelled} if self.is_one_sided else {})

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
        if by_request and (self.entity is not None or self.request_entity is not None):
            raise ValueError(
                f"label '{self.version}': entity and request_entity are read by attribution 'first', 'last' and "
                "'nearest', and it is 'same_request'; choose one of those, or leave both out"
            )
        return self

    @property
    def stored_value(self) -> str:
        """The SQL expression of what table ``labels`` keeps: a number; of a class its place among ``classes``."""
        if not self.classes:
            return f"({self.value})::double"
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in self.classes)
        text = f"({self.value})::varchar"
        return f"case when {text} is not null then coalesce(list_position([{listed}], {text}), 0) - 1 end::double"

    @model_validator(mode="after")
    def _classes_differ(self) -> "LabelDefinition":
        if self.classes and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            raise ValueError(
                f"classes {', '.join(self.classes)} of label '{self.version}': name two or more, each once"
            )
        return self

    @property
    def is_one_sided(self) -> bool:
        """Whether only positive outcomes arrive."""
        return self.unlabelled == "negative"

    @model_validator(mode="after")
    def _prior_is_a_curve(self) -> "LabelDefinition":
        shares, ages = self.prior_completeness, ceil(self.window_hours / 24)
        if shares and (len(shares) != ages or list(shares) != sorted(shares) or shares[0] == 0):
            raise ValueError(
                f"prior_completeness {shares} is not a curve: name one share above 0 for each age from 0 to "
                f"{ages - 1} days, never falling; from the window on ({ages} days) all labels are there"
            )
        return self
