"""Which services there are: the examples of the package, or the ones that ``MLOPS_SERVICES`` names."""

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterable

from pydantic import ValidationError

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.policy import impossible
from mlops_assets.service.service import MLService

VARIABLE = "MLOPS_SERVICES"
"""Environment variable: ``package.module:attribute``, comma separated; it replaces the examples."""


def service_references() -> list[str]:
    """``package.module:attribute`` of every service, from ``MLOPS_SERVICES`` or from the examples.

    An example is a package with a module ``service``, in which the declaration has the name of the package.
    """
    if given := os.environ.get(VARIABLE, "").strip():
        return [reference.strip() for reference in given.split(",") if reference.strip()]
    examples = importlib.import_module("mlops_assets.examples")
    names = [module.name for module in pkgutil.iter_modules(examples.__path__) if module.ispkg]
    found = (f"{examples.__name__}.{name}.service" for name in names)
    return [f"{module}:{module.split('.')[-2]}" for module in found if importlib.util.find_spec(module)]


def find_services() -> dict[str, MLService]:
    """Every declared service by its name; declarations are loaded, nothing is opened.

    Raises:
        DeclarationError: a reference that leads nowhere, or two services of one name.
    """
    services: dict[str, MLService] = {}
    for reference in service_references():
        service = load_service(reference)
        if service.name in services:
            raise DeclarationError(f"{VARIABLE} > {reference}", f"'{service.name}' is declared twice.", "Rename one.")
        services[service.name] = service
    check_sharing(services.values())
    return services


def check_sharing(services: Iterable[MLService]) -> None:
    """What services share is stored once, so they must mean the same by it.

    Raises:
        DeclarationError: two services share a source and not their calendar; or one whose ids are pseudonyms: each
            service has a key of its own, and the one that reads a file first would decide which.
    """
    owners: dict[str, MLService] = {}
    for service in services:
        for source in service.sources:
            other = owners.setdefault(source.name, service)
            if other.name == service.name:
                continue
            where = f"service '{service.name}' > sources > {source.name}"
            if other.timezone != service.timezone:
                raise DeclarationError(
                    where, f"is shared with '{other.name}', whose days are those of {other.timezone}, not of "
                    f"{service.timezone}.", "Share one calendar, or give each service its own source.",
                )  # fmt: skip
            if source.pseudonymise or other.source(source.name).pseudonymise:
                raise DeclarationError(
                    where, f"stores pseudonyms and is shared with '{other.name}', which has another key.",
                    "Give each service its own source, with its own folder in the landing zone.",
                )  # fmt: skip


def find_service(name: str) -> MLService:
    """The service of this name.

    Raises:
        UnknownNameError: no service is called so; the message has the nearest name.
    """
    services = find_services()
    if name not in services:
        raise UnknownNameError(where="mlops", kind="service", name=name, known=services)
    return services[name]


def load_service(reference: str) -> MLService:
    """The declaration that ``package.module:attribute`` names; modules of the working folder count too.

    Raises:
        DeclarationError: the module or the attribute does not exist, is no ``MLService``, or declares what cannot be.
    """
    module_name, _, attribute = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    where = f"{VARIABLE} > {reference}"
    try:
        found = getattr(importlib.import_module(module_name), attribute or "service")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise DeclarationError(
            where, f"no module is named '{error.name}'.", "Write package.module:attribute."
        ) from error
    except ValidationError as error:
        raise impossible(where, error) from error
    except AttributeError as error:
        raise DeclarationError(where, f"{error}.", "Write package.module:attribute.") from error
    if not isinstance(found, MLService):
        raise DeclarationError(where, f"is a {type(found).__name__}, not an MLService.", "Name the declaration itself.")
    return found
