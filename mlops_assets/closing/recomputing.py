"""A closed day computed again (a backfill): derived tables under the recorded roles; no fact, no decision, no page.

Where a value or a decision would now differ, a ``divergences`` row says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from mlops_assets.adapters.engine import copy_sql, literal, open_engine, rows, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.block import Block, compute_block
from mlops_assets.closing.commit import LOOP_TABLES
from mlops_assets.closing.features import generation_rows, ordered_sql, profile_feature_sets
from mlops_assets.closing.judging import judge_block
from mlops_assets.closing.known import recorded
from mlops_assets.closing.repairing import (
    REPAIRED,
    divergence,
    repair_features,
    say_divergences,
    show_repaired,
    stored_generations,
)
from mlops_assets.closing.world import World, arrow
from mlops_assets.tables import BY_NAME

DERIVED = ("completeness", "profiles", "quality", "kpi", "rules", "operations", "objectives", "drift", "loop_sync",
           "verdicts")  # fmt: skip
"""Tables of the day loop that are a function of facts and ledger; outcomes are a projection and are left alone."""


@dataclass(frozen=True)
class Recomputed:
    """One closed day after it was computed again."""

    day: date
    state: str
    verdict: str
    reason: str
    rows: Mapping[str, int]


def recompute_block(world: World, days: list[date]) -> list[Recomputed]:
    """Compute closed, consecutive days again under what their closings list; the caller holds the lease.

    First features and freshness, from the sources; what follows from them then reads what was put right.
    """
    known = [generation for generation in recorded(world) if generation.listed_on <= max(days)]
    repair_features(world, days, known)
    with open_engine() as con:
        block = compute_block(world, con, days, known)
        _profile_features_again(world, block)
        judged = judge_block(world, block, stops=False)
        before = stored_generations(world, days)
        now = {
            (row["table_name"], row["day"]): row
            for name in LOOP_TABLES
            if name != "outcomes"
            for row in generation_rows(world, con, name, days, block.inputs)
        }
        said = {key: row["fingerprint"] for key, row in before.items()}
        lying = said | _lying_fingerprints(world, block)
        changed = {key for key, row in now.items() if {lying.get(key), said.get(key)} != {row["fingerprint"]}}
        decided = {row["decision_id"]: row for row in world.ledger.effective("decisions", world.name)}
        would = {row["decision_id"]: row for judgement in judged for row in judgement.decisions}
        found = [divergence(world, *key, lying.get(key, ""), now[key]) for key in sorted(changed)]
        say_divergences(world, found + _decision_divergences(world, days, decided, would))
        _rewrite(world, block, before, now, changed)
    show_repaired(world, (*REPAIRED, *DERIVED, "generations"), days)
    states = world.ledger.closings(world.name)
    return [
        Recomputed(
            j.day, states[j.day]["state"], j.verdict["verdict"], j.verdict["reason"],
            {name: row["rows"] for (name, day), row in now.items() if day == j.day},
        )
        for j in judged
    ]  # fmt: skip


def used_features_sql() -> str:
    """SQL of the features that were computed on their own day, not filled backwards."""
    return "select * from features where filled_on is null"


def distinct_versions_sql() -> str:
    """SQL of the feature versions that the block's days were computed with."""
    return "select distinct feature_version from used_features order by feature_version"


def drop_feature_profiles_sql() -> str:
    """SQL that leaves the profiles of scores and labels alone."""
    return "delete from profiles where subject in (select feature_version from features)"


def _profile_features_again(world: World, block: Block) -> None:
    """Feature profiles from the stored features, in place of the stored profiles."""
    con = block.con
    run(con, copy_sql("used_features", used_features_sql()))
    run(con, drop_feature_profiles_sql())
    feature_sets = [world.feature_set(version) for (version,) in rows(con, distinct_versions_sql())]
    if feature_sets:
        profile_feature_sets(world, con, feature_sets, features="used_features", days=block.days)


def _rewrite(
    world: World,
    block: Block,
    before: Mapping[tuple[str, date], Row],
    now: Mapping[tuple[str, date], Row],
    changed: set[tuple[str, date]],
) -> None:
    """Write the derived days whose content changed, then what ``generations`` says of them."""
    metadata = {"service": world.name, "recomputed": "true"}
    for name in DERIVED:
        days = sorted(day for table, day in changed if table == name)
        if days:
            table = BY_NAME[name]
            listed = ", ".join(literal(day) for day in days)
            names = [column.name for column in table.columns]
            content = block.con.sql(ordered_sql(name, names, table.key, f"day in ({listed})")).to_arrow_table()
            world.lake.replace_days(name, days, content, metadata)
    touched = sorted({day for name, day in changed if name in DERIVED})
    if touched:
        kept = [
            {**row, "day": key[1]}
            for key, row in {**before, **{key: now[key] for key in changed if key[0] in DERIVED}}.items()
            if key[1] in touched
        ]
        world.lake.replace_days("generations", touched, arrow(kept, BY_NAME["generations"].columns), metadata)


def _lying_fingerprints(world: World, block: Block) -> dict[tuple[str, date], str]:
    """What the derived tables hold, whatever ``generations`` says: somebody may have changed them."""
    found = {}
    for name in DERIVED:
        world.lake.view(
            block.con, name, BY_NAME[name].columns, name="lying", first=min(block.days), last=max(block.days)
        )
        for row in generation_rows(world, block.con, name, block.days, block.inputs, relation="lying"):
            found[(name, row["day"])] = row["fingerprint"]
    return found


def _decision_divergences(
    world: World, days: list[date], decided: Mapping[str, Row], would: Mapping[str, Row]
) -> list[Row]:
    others = {i for i, row in decided.items() if "by" in row["evidence"]}  # people's and the clock's stand as they are
    recorded_ids = {i for i, row in decided.items() if row["day"] in set(days)} - others
    return [
        {
            "service": world.name, "epoch": world.ledger.epoch(world.name),
            "day": (decided.get(i) or would[i])["day"], "table_name": "decisions",
            "recorded": i if i in recorded_ids else "", "would_be": "" if i in recorded_ids else i,
            "reason": f"this decision would {'not ' if i in recorded_ids else ''}be taken now",
            "recorded_at": world.clock(),
        }
        for i in sorted(recorded_ids ^ (set(would) - others))
    ]  # fmt: skip
