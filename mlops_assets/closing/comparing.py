"""What labels are worth: two definitions side by side, and how many there are only because of our own decision."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.world import World
from mlops_assets.feedback_loop.label_comparison import class_rates_sql, label_agreement_sql, label_quality_sql
from mlops_assets.feedback_loop.outcomes import outcomes_sql

Compared = dict[str, Any]
OWN_LABELS_DAYS = 28


def compared_definitions(world: World, last: date | None) -> list[Compared]:
    """Every two label definitions as of the end of a closed day, each with the quality of every model under both.

    Empty where one definition stands alone, and where no request has both labels yet. Only requests that both
    definitions label are compared, so that a model is never held against other requests.
    """
    if last is None or len(world.service.labels) < 2:
        return []
    service, labels = world.service, labels_as_of_sql(world.name, last)
    agreed = _asked(world, label_agreement_sql(labels, tolerance=service.label.tolerance))
    judged = _asked(world, quality_as_of_sql(world, last)) if agreed else []
    classes = _asked(world, class_rates_sql(service, labels)) if agreed and service.task == "multiclass" else []
    return [
        {**row, "task": service.task, "tolerance": service.label.tolerance, "classes": _of_pair(classes, row),
         "models": _of_pair(judged, row)}
        for row in agreed
    ]  # fmt: skip


def _asked(world: World, query: str) -> list[Compared]:
    return ask([world.service], world.home, query).objects()


def _of_pair(rows: Sequence[Compared], pair: Compared) -> list[Compared]:
    """The rows about one pair of definitions, without its names."""
    names = ("version", "other")
    return [
        {name: value for name, value in row.items() if name not in names}
        for row in rows
        if all(row[name] == pair[name] for name in names)
    ]


def labels_as_of_sql(service: str, last: date) -> str:
    """SQL of a relation: the label events that were known at the end of a day."""
    return f"(select * from {quote(service)}.labels where day <= {literal(last)})"


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
    return label_quality_sql(world.service, f"({' union all by name '.join(told)})", f"{quote(world.name)}.predictions")


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


SHOWN: Mapping[str, Mapping[str, str]] = {
    "binary": {"brier": "Brier", "auc": "AUC"},
    "regression": {"mae": "MAE", "rmse": "RMSE"},
    "multiclass": {"log_loss": "log loss", "accuracy": "accuracy", "macro_f1": "macro F1"},
    "ranking": {"ndcg": "NDCG", "ctr": "CTR"},
}
"""Task -> what the page says of a model under both definitions, and what it is called there."""


def agreement_in_words(row: Compared) -> str:
    """How far two definitions agree; of two numbers the first one is under the first definition."""
    kappa = "not known" if row["kappa"] is None else f"{row['kappa']:.2f}"
    if row["task"] == "regression":
        related = "not known" if row["correlation"] is None else f"{row['correlation']:.2f}"
        return (
            f"means {row['rate']:.4g} and {row['other_rate']:.4g} (difference {row['mean_difference']:+.4g}), within "
            f"{row['tolerance']:g} of each other for {row['agreement']:.1%}, correlation {related}"
        )
    if row["task"] == "multiclass":
        rates = ", ".join(
            f"{one['class']} {one['rate']:.1%} and {one['other_rate']:.1%}"
            for one in row["classes"]
            if one["rate"] or one["other_rate"]
        )
        return f"rates {rates}, the same for {row['agreement']:.1%}, kappa {kappa}"
    rates = f"rates {row['rate']:.1%} and {row['other_rate']:.1%}"
    return f"{rates}, the same for {row['agreement']:.1%}, kappa {kappa}"


def comparison_lines(compared: Sequence[Compared]) -> Iterator[str]:
    """The page for people, line by line; of two numbers the first one is under the first definition."""
    for row in compared:
        yield f"{row['version']} beside {row['other']}: {row['n']:,} requests have both, {agreement_in_words(row)}"
        for one in row["models"]:
            told = [
                f"{title} {one[name]:.4f} and {one['other_' + name]:.4f}"
                for name, title in SHOWN[row["task"]].items()
                if one[name] is not None and one["other_" + name] is not None
            ]
            yield f"  {one['model_version']}: {one['n']:,} answers, {', '.join(told)}"


def comparison_page(compared: Sequence[Compared]) -> str:
    """The same page as Markdown tables."""
    parts = []
    for row in compared:
        one, other, shown = row["version"], row["other"], SHOWN[row["task"]]
        titles = [f"{title}, {version}" for title in shown.values() for version in (one, other)]
        names = [named for name in shown for named in (name, f"other_{name}")]
        parts += [
            f"**{one} beside {other}**: {row['n']:,} requests have both labels; {agreement_in_words(row)}.\n",
            _row("model", "answers", *titles),
            _row(*(["---"] * (2 + len(titles)))),
            *(_row(m["model_version"], f"{m['n']:,}", *(_cell(m[name]) for name in names)) for m in row["models"]),
            "",
        ]  # fmt: skip
    return "\n".join(parts)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
