"""The base of every promise, and the small types promises are made of."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.errors import DeclarationError, UnknownNameError


class Policy(BaseModel):
    """A promise: frozen, and without room for a misspelt field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def promises(base: type[Policy] = Policy) -> Iterator[type[Policy]]:
    """Every kind of promise there is."""
    for kind in base.__subclasses__():
        yield kind
        yield from promises(kind)


def impossible(where: str, error: ValidationError) -> DeclarationError:
    """What pydantic found wrong with a declaration first, as one sentence; ``where`` is where it stands."""
    first, *others = error.errors()
    path = f"{where} > {error.title}" + "".join(f"[{p}]" if isinstance(p, int) else f" > {p}" for p in first["loc"])
    kind = next((kind for kind in promises() if kind.__name__ == error.title), None)
    if first["type"] == "extra_forbidden" and kind is not None and len(first["loc"]) == 1:
        field = str(first["loc"][0])
        return UnknownNameError(
            where=path, kind="field", name=field, known=[f.alias or n for n, f in kind.model_fields.items()]
        )
    said = first["msg"].removeprefix("Value error, ").rstrip(".")
    given = first["input"]
    here = (
        f", and it is {given!r}"
        if isinstance(given, str | int | float | bool | None) and first["type"] != "missing"
        else ""
    )
    more = f" {len(others)} more field(s) are wrong." if others else ""
    return DeclarationError(
        path, f"{said}{here}.{more}", "" if first["type"] == "value_error" else "Correct the field."
    )


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise ValueError(f"{name!r} must match ^[a-z][a-z0-9_]{{0,62}}$: lower case, digits, underscores")
    return name


Identifier = Annotated[str, AfterValidator(_identifier)]
"""A name that is also a schema, a folder and an asset key."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A part of a whole, 0 to 1; 0.05 is 5 %."""

Hours = Annotated[float, Field(gt=0)]
Days = Annotated[int, Field(ge=0)]
