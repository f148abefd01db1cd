"""The base of every promise, and the small types promises are made of."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Policy(BaseModel):
    """A promise: frozen, and without room for a misspelt field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
