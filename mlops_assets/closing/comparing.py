"""What labels are worth: two definitions side by side, and how many there are only because of our own decision."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.world import World
from mlops_assets.feedback_loop.labels import label_agreement_sql, label_quality_sql
from mlops_assets.feedback_loop.outcomes import outcomes_sql

Compared = dict[str, Any]
OWN_LABELS_DAYS = 28


def compared_definitions(world: World, last: date | None) -> list[Compared]:
    """Every two label definitions as of the end of a closed day, each with the quality of every model under both.

    Empty where one definition stands alone, where no request has both labels yet, and where what is answered is not yes
    or no. Only requests that both definitions label are compared, so that a model is never held against other requests.
    """
    if last is None or len(world.service.labels) < 2 or world.service.task != "binary":
        return []
    agreed = ask([world.service], world.home, agreement_as_of_sql(world.name, last)).objects()
    judged = ask([world.service], world.home, quality_as_of_sql(world, last)).objects() if agreed else []
    pair = ("version", "other")
    return [
        {**row, "models": [{name: value for name, value in one.items() if name not in pair}
                           for one in judged if all(one[name] == row[name] for name in pair)]}
        for row in agreed
    ]  # fmt: skip


def agreement_as_of_sql(service: str, last: date) -> str:
    """SQL of the agreement of every two definitions, by what was known at the end of a day."""
    return label_agreement_sql(f"(select * from {quote(service)}.labels where day <= {literal(last)})")


def quality_as_of_sql(world: World, last: date) -> str:
    """SQL of the quality of every model under every two definitions, by what was known at the end of a day."""
    told = [
        outcomes_since_sql(
            outcomes_sql(
                label, predictions=f"{world.name}.predictions", labels=f"{world.name}.labels",
                days=f"{world.name}.days", as_of=literal(last),
            ),
            label.effective_from or world.service.first_day,
        )
        for label in world.service.labels
    ]  # fmt: skip
    return label_quality_sql(f"({' union all by name '.join(told)})")


def outcomes_since_sql(query: str, first: date) -> str:
    """SQL of the outcomes of predictions from a day on: a definition counts for them and no earlier ones."""
    return f"select * from ({query}) where day >= {literal(first)}"


def own_labels_share(world: World, last: date | None) -> float | None:
    """Share of the labels of the last four weeks that exist only because of our own positive decision.

    None where labels do not depend on decisions (``needs_decision``), or where there are none yet.
    """
    if last is None or not world.service.label.needs_decision:
        return None
    query = own_labels_sql(world.name, world.service.label.version, last - timedelta(days=OWN_LABELS_DAYS - 1), last)
    ((share,),) = ask([world.service], world.home, query).rows
    return None if share is None else round(float(share), 9)


def own_labels_sql(service: str, label_version: str, first: date, last: date) -> str:
    """SQL of the share of label events of some days that only exist because of our own decision."""
    return f"""
        select sum(total) / nullif(sum(n - nulls), 0) from {quote(service)}.profiles
        where subject = {literal(label_version)} and slice = 'all' and column_name = 'own_decision'
          and day between {literal(first)} and {literal(last)}
    """


def comparison_lines(compared: Sequence[Compared]) -> Iterator[str]:
    """The page for people, line by line; of two numbers the first one is under the first definition."""
    for row in compared:
        kappa = "not known" if row["kappa"] is None else f"{row['kappa']:.2f}"
        yield (
            f"{row['version']} beside {row['other']}: {row['n']:,} requests have both, rates {row['rate']:.1%} and "
            f"{row['other_rate']:.1%}, the same for {row['agreement']:.1%}, kappa {kappa}"
        )
        for one in row["models"]:
            auc = f", AUC {_both(one, 'auc')}" if one["auc"] is not None and one["other_auc"] is not None else ""
            yield f"  {one['model_version']}: {one['n']:,} answers, Brier {_both(one, 'brier')}{auc}"


def _both(one: Compared, metric: str) -> str:
    return f"{one[metric]:.4f} and {one['other_' + metric]:.4f}"


def comparison_page(compared: Sequence[Compared]) -> str:
    """The same page as Markdown tables."""
    parts = []
    for row in compared:
        kappa = "not known" if row["kappa"] is None else f"{row['kappa']:.2f}"
        one, other = row["version"], row["other"]
        parts += [
            f"**{one} beside {other}**: {row['n']:,} requests have both labels; the same for {row['agreement']:.1%}, "
            f"kappa {kappa}; rates {row['rate']:.1%} and {row['other_rate']:.1%}.\n",
            f"| model | answers | Brier, {one} | Brier, {other} | AUC, {one} | AUC, {other} |",
            "| --- | --- | --- | --- | --- | --- |",
            *("| " + " | ".join([
                model["model_version"], f"{model['n']:,}",
                *(_cell(model[name]) for name in ("brier", "other_brier", "auc", "other_auc")),
            ]) + " |" for model in row["models"]),
            "",
        ]  # fmt: skip
    return "\n".join(parts)


def _cell(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
