"""Whether everything that is declared makes sense for the task of a service, so that no number is ever a wrong one."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.expressions import check_column
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.operations import QualityObjective
from mlops_assets.service.tasks import METRICS

if TYPE_CHECKING:
    from mlops_assets.service.service import MLService

Problem = tuple[str, str, str]
"""Path of the field below the service, what is wrong, and what to do."""


def check_task(service: "MLService") -> None:
    """Hold a declaration against its task.

    Raises:
        UnknownNameError: a metric that this task does not have, a core metric that is not measured, or a query column
            that the request does not have.
        DeclarationError: a promise that means something only for another task.
    """
    where = f"service '{service.name}'"
    own = [metric.name for metric in service.quality.own_metrics]
    objective = service.operations.objective("quality")
    named = [("quality > metrics", name, METRICS[service.task]) for name in service.quality.metrics]
    kpi = [service.quality.kpi.name] if service.quality.kpi else []
    measured = (*service.quality.measured, *kpi)
    named += [("quality > core_metrics", name, measured) for name in service.quality.core_metrics]
    if isinstance(objective, QualityObjective):
        named.append(("operations > objectives > quality", objective.metric, (*METRICS[service.task], *own)))
    for part, name, known in named:
        if name not in known:
            raise UnknownNameError(where=f"{where} > {part}", kind=f"{service.task} metric", name=name, known=known)
    problems = (
        _of_names(service),
        _of_decisions(service),
        _only_for_yes_or_no(service),
        _of_classes(service),
        _of_lists(service),
    )
    for part, what, fix in chain.from_iterable(problems):
        raise DeclarationError(f"{where} > {part}", what, fix)
    if service.ranking is not None:
        check_column(service.ranking.query, where=f"{where} > ranking > query", columns=service.request.columns)


def _of_names(service: "MLService") -> Iterator[Problem]:
    """A metric of one's own has a name of its own."""
    taken = set(chain.from_iterable(METRICS.values()))
    taken |= {service.quality.kpi.name} if service.quality.kpi else set()
    for metric in service.quality.own_metrics:
        if metric.name in taken:
            yield "quality > own_metrics", f"the name '{metric.name}' is taken.", "Give your metric another name."
        taken.add(metric.name)


def _of_decisions(service: "MLService") -> Iterator[Problem]:
    """What is about our decisions needs some: else every share of them would be a zero that means nothing."""
    log = service.prediction_log
    has_none = log.decision is None if log else service.model.threshold is None
    where = "prediction_log.decision" if log else "model.threshold"
    for label in service.labels:
        if label.needs_decision and has_none:
            yield (
                "label > needs_decision",
                f"label '{label.version}' depends on our decision, and {where} does not say what was decided.",
                f"Declare {where}, or leave needs_decision out.",
            )


def _only_for_yes_or_no(service: "MLService") -> Iterator[Problem]:
    """Promises that are about chances and decisions."""
    if service.task == "binary":
        return
    task = f"task '{service.task}'"
    if service.declared_model is not None:
        yield (
            "model",
            f"models of {task} are not trained here.",
            "Declare the prediction_log of the model that runs elsewhere, or task='binary'.",
        )
    if service.quality.calibration is not None:
        yield "quality > calibration", f"observed beside predicted positives say nothing of {task}.", "Leave it out."
    if service.quality.estimates and service.task != "multiclass":
        yield "quality > estimates", f"a day of {task} cannot be estimated before its labels.", "Leave it out."
    kpi = service.quality.kpi
    if kpi is not None and kpi.source is None and kpi.expression is None:
        yield (
            "quality > kpi",
            f"values of true and of false alarms are about yes or no, not {task}.",
            "Declare an expression over score, outcome and slices, or a source.",
        )
    for label in service.labels:
        if label.noise is not None and (service.task != "multiclass" or not label.noise.confusion):
            fix = "Declare confusion." if service.task == "multiclass" else "Leave it out."
            yield "label > noise", f"shares of wrong labels are about yes or no, not {task}.", fix
        if label.is_one_sided and service.task != "ranking":
            yield (
                "label > unlabelled",
                f"'negative' is an outcome of yes or no and of ranked rows, not of {task}.",
                "Use 'left_out'.",
            )


def _of_classes(service: "MLService") -> Iterator[Problem]:
    """Classes are declared where the answer is one of them, in every label and in the log."""
    scored = set(service.prediction_log.class_scores) if service.prediction_log else set()
    for label in service.labels:
        noise = label.noise.confusion if label.noise else ()
        if noise and len(noise) != len(label.classes):
            yield (
                "label > noise",
                f"confusion is about {len(noise)} classes, the label has {len(label.classes)}.",
                "Give it a row and a column per class, or, for yes or no, the two shares of wrong labels.",
            )
        if service.task != "multiclass":
            if label.classes or scored:
                yield "label > classes", f"task '{service.task}' has no classes.", "Use task='multiclass'."
        elif not label.classes:
            yield "label > classes", "the classes of the answer are not declared.", "Name them, in any fixed order."
        elif label.splits_at is not None:
            yield "label > splits_at", "a class is no number.", "Leave it out."
        elif scored != set(label.classes):
            yield (
                "prediction_log > class_scores",
                f"it has {_listed(scored)}, and label '{label.version}' {_listed(set(label.classes))}.",
                "Name one expression per class: where the log keeps the chance of it.",
            )
        elif label.classes != service.label.classes:
            yield "label > classes", "two definitions order their classes differently.", "Use one order."


def _of_lists(service: "MLService") -> Iterator[Problem]:
    """A ranking says what one list is, and where money is measured what an outcome is worth."""
    if service.task != "ranking":
        if service.ranking is not None:
            yield "ranking", f"task '{service.task}' ranks nothing.", "Use task='ranking'."
        return
    if service.ranking is None:
        yield (
            "ranking",
            "what one list is, is not declared.",
            "Declare RankingPolicy(query=...): the column with the query or session that rows were shown in.",
        )
    if "revenue_per_impression" in service.quality.metrics and not all(map(_has_worth, service.labels)):
        yield (
            "quality > metrics",
            "'revenue_per_impression' needs what an outcome is worth.",
            "Declare label.kpi.",
        )


def _has_worth(label: LabelDefinition) -> bool:
    return label.kpi is not None


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
