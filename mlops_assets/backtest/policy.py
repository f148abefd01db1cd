"""A policy file: some fields of a declaration, by the names that they have there; everything else stays as declared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.monitoring_loop.events import StrictLoader
from mlops_assets.service.policy import Policy
from mlops_assets.service.service import MLService

Declared = TypeVar("Declared", bound=Policy)

SECTIONS: Mapping[str, frozenset[str] | None] = {
    "drift": None,
    "quality": frozenset({"degradation", "calibration", "harm"}),
    "model": frozenset({"cadence", "retrain_when", "cool_down_days", "first_training"}),
    "incidents": frozenset({"quiet_days", "minutes_each"}),
}
"""Section -> the fields that stored rows can be judged by again; None: all of them."""


@dataclass(frozen=True)
class Change:
    """One field that a policy file declares otherwise."""

    field: str
    before: str
    after: str


def with_policy(service: MLService, path: Path, *, is_trained: bool) -> tuple[MLService, tuple[Change, ...]]:
    """The service under the policy of a file, and what that changes.

    Args:
        service: as declared.
        path: YAML with the sections ``drift``, ``quality``, ``model`` and ``incidents``; a list replaces the declared
            one, a mapping changes the fields that it names.
        is_trained: models are trained again, so every field of ``model`` can be tried.

    Raises:
        DeclarationError: the file cannot be read, names something unknown (the nearest right name is in the message),
            says something impossible, or changes what was measured.
    """
    given = read_policy(path)
    parts: dict[str, Any] = {_alias(name): getattr(service, name) for name in MLService.model_fields}
    for section, fields in given.items():
        where = f"{path.name} > {section}"
        declared = parts.get(section)
        if section not in SECTIONS:
            raise UnknownNameError(where=path.name, kind="section of a policy", name=section, known=SECTIONS)
        if not isinstance(declared, Policy):
            raise DeclarationError(where, f"service '{service.name}' declares no {section}.", "Leave it out.")
        _check_names(type(declared), fields, where)
        _check_replayable(section, fields, where, is_trained=is_trained)
        parts[section] = _validated(type(declared), _merged(declared.model_dump(), fields), where)
    changed = _validated(MLService, parts, path.name)
    return changed, tuple(_changes(service, changed, given))


def read_policy(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of a policy file.

    Raises:
        DeclarationError: there is no such file, or it is no mapping of sections to fields.
    """
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except OSError as error:
        raise DeclarationError(str(path), f"{error.strerror}.", "Name a YAML file.") from error
    except yaml.YAMLError as error:
        raise DeclarationError(str(path), f"{error}.", "Write each field once, as plain YAML.") from error
    sections = {} if given is None else given
    if not isinstance(sections, dict) or not all(isinstance(fields, dict) for fields in sections.values()):
        raise DeclarationError(
            str(path), "is no mapping of sections to fields.", f"Sections: {', '.join(sorted(SECTIONS))}."
        )
    return sections


def _alias(name: str) -> str:
    return MLService.model_fields[name].alias or name


def _check_names(policy: type[Policy], given: Any, where: str) -> None:
    """Refuse a field that a declaration does not have, however deep it stands."""
    for item in given if isinstance(given, list) else [given]:
        for name, value in item.items() if isinstance(item, dict) else ():
            if name not in policy.model_fields:
                raise UnknownNameError(where=where, kind="field", name=str(name), known=policy.model_fields)
            inner = next(_policies_in(policy.model_fields[name].annotation), None)
            if inner is not None:
                _check_names(inner, value, f"{where} > {name}")


def _policies_in(annotation: Any) -> Iterator[type[Policy]]:
    """The promises that a type is made of: itself, or those inside of a tuple or a union."""
    if isinstance(annotation, type) and issubclass(annotation, Policy):
        yield annotation
    for part in get_args(annotation):
        yield from _policies_in(part)


def _check_replayable(section: str, fields: Mapping[str, Any], where: str, *, is_trained: bool) -> None:
    allowed = SECTIONS[section]
    if allowed is None or (section == "model" and is_trained):
        return
    for name in fields:
        if name not in allowed:
            fix = "Add --train." if section == "model" else "Declare it and redo the days: mlops replay --redo-from."
            raise DeclarationError(f"{where} > {name}", "changes what was measured, not how it is judged.", fix)


def _merged(declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(declared)
    for name, value in given.items():
        before = found.get(name)
        found[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def _validated(kind: type[Declared], given: Mapping[str, Any], where: str) -> Declared:
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        field = " > ".join(str(part) for part in first["loc"])
        raise DeclarationError(f"{where} > {field}" if field else where, f"{first['msg']}.", "Correct it.") from error


def _changes(before: MLService, after: MLService, given: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
    names = {_alias(name): name for name in MLService.model_fields}
    for section, fields in given.items():
        old, new = (getattr(service, names[section]).model_dump(mode="json") for service in (before, after))
        for field in fields:
            if old[field] != new[field]:
                yield Change(f"{section}.{field}", str(old[field]), str(new[field]))
