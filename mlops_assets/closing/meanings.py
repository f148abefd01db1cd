"""What a label version means is written down on its first use; another meaning needs another version."""

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.world import World
from mlops_assets.errors import DeclarationError
from mlops_assets.service.labels import LabelDefinition


def new_meanings(world: World) -> list[Row]:
    """Ledger rows of the definitions that nobody used so far.

    Raises:
        DeclarationError: a version was used with another meaning; names the field and both texts.
    """
    used = {row["label_version"]: row for row in world.ledger.rows("label_definitions", world.name)}
    found: list[Row] = []
    for label in world.service.labels:
        if label.version in used:
            refuse_another_meaning(world.name, label, used[label.version]["meaning"])
        else:
            found.append({
                "service": world.name, "label_version": label.version, "meaning": label.meaning,
                "fingerprint": label.fingerprint, "recorded_at": world.clock(),
            })  # fmt: skip
    return found


def refuse_another_meaning(service: str, label: LabelDefinition, before: dict[str, str]) -> None:
    """Metrics of one version never mix two meanings.

    Raises:
        DeclarationError: a field says something else than on the version's first use.
    """
    changed = [field for field, text in label.meaning.items() if before.get(field, text) != text]
    if changed:
        texts = "; ".join(f"{field} was '{before[field]}' and is '{label.meaning[field]}'" for field in changed)
        raise DeclarationError(
            f"service '{service}' > label '{label.version}'",
            f"{texts}, under the same version.",
            "Give the new meaning a new version, and keep the old one beside it while you compare them.",
        )
