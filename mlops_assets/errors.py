"""Every error raised on purpose, drawn as one tree.

MlopsError
├── DeclarationError        an impossible declaration: where, what, how to put it right
│   └── UnknownNameError    a name that nothing declares, with the nearest one that is
├── RangeError              a range of days that cannot be computed as asked
├── LeaseHeldError          another run writes this service
├── NothingToDoError        asked for work that is already done
├── ContractError           a delivered file cannot be used at all
├── DatabaseError           a database of others cannot be read
├── LedgerError             the ledger does not say what was expected of it
├── DeliveryError           a message that did not reach every address
└── RegistryError           a stored model is missing, changed, or not trusted
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MlopsError(Exception):
    """Base of all errors that this package raises on purpose; its text is for people."""


class DeclarationError(MlopsError):
    """A declaration that cannot be kept.

    Args:
        where: path of the field, for example ``service 'shop' > drift > critical_features``.
        what: what is wrong with it.
        fix: what to do about it.
    """

    def __init__(self, where: str, what: str, fix: str) -> None:
        super().__init__(f"{where}: {what} {fix}".rstrip())
        self.where, self.what, self.fix = where, what, fix


class UnknownNameError(DeclarationError):
    """A name that nothing declares."""

    def __init__(self, *, where: str, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=1)
        all_of_them = "Declared: " + ", ".join(names) + "." if names else "There is none."
        fix = (f"Did you mean '{near[0]}'? " if near else "") + all_of_them
        super().__init__(where, f"no {kind} is named '{name}'.", fix)
        self.kind, self.name, self.known = kind, name, tuple(names)


class RangeError(MlopsError):
    """A range of days that cannot be computed as asked."""


class HomeError(MlopsError):
    """The folder that is asked about does not exist."""


class LeaseHeldError(MlopsError):
    """Another run holds the service's lease; one service has one writer at a time."""


class NothingToDoError(MlopsError):
    """The work asked for is already done."""


class ContractError(MlopsError):
    """A delivered file that cannot be used at all: names source, day, column and the fix."""


class DatabaseError(MlopsError):
    """A database of others that cannot be read: names source, table and the fix, and holds no secret of its URL."""


class LedgerError(MlopsError):
    """The ledger does not say what was expected of it."""


class DeliveryError(MlopsError):
    """A message that did not reach every address; its text names no address."""


class RegistryError(MlopsError):
    """A stored model that is missing, changed since it was stored, or not trusted."""
