"""Two label definitions side by side: how far they agree, and what every model is worth under both.

Only requests that both definitions label are compared, so that a model is never held against other requests. What is
measured follows the task; the formulas are those of ``monitoring_loop``, written as SQL so that people can ask for
them (``SERVICE.label_agreement``, ``SERVICE.label_quality``).
"""

from collections.abc import Mapping

from mlops_assets.adapters.engine import literal
from mlops_assets.service.service import MLService
from mlops_assets.service.tasks import Task

MEASURED: Mapping[Task, tuple[str, ...]] = {
    "binary": ("positive_share", "brier", "auc"),
    "regression": ("mae", "rmse"),
    "multiclass": ("log_loss", "accuracy", "macro_f1"),
    "ranking": ("ndcg", "ctr"),
}
"""What a model is worth, per task: columns of ``label_quality``, each once more with ``other_`` before it."""
SMALLEST_CHANCE = "2.220446049250313e-16"


def pairs_sql(labels: str) -> str:
    """SQL of two common tables, the second one ``pairs``: what every two definitions say of a request, by the newest
    event of each."""
    return f"""
        newest as (
            select request_id, label_version, arg_max_null(value, known_at) as value
            from {labels} group by all
        ), pairs as (
            select a.label_version as version, b.label_version as other, a.value as mine, b.value as theirs
            from newest a join newest b on a.request_id = b.request_id and a.label_version < b.label_version
            where a.value is not null and b.value is not null
        )"""


def label_agreement_sql(labels: str, *, tolerance: float = 0.0) -> str:
    """SQL that compares every two label versions on the requests that both of them label, by the newest event.

    Columns: both versions, requests, both means (rates of yes or no), the share of labels that are the same (numbers:
    differ by at most ``tolerance``), Cohen's kappa (Educational and Psychological Measurement 20, 1960) over all values
    that occur: agreement beyond chance, 1 is perfect, 0 is chance, null if there is no other; Pearson's correlation,
    and by how much the other label is larger on average.
    """
    return f"""
        with {pairs_sql(labels)},
        compared as (
            select version, other, count(*) as n, avg(mine) as rate, avg(theirs) as other_rate,
                   avg((abs(mine - theirs) <= {tolerance!r}::double)::integer) as agreement,
                   avg((mine = theirs)::integer) as identical, avg(theirs - mine) as mean_difference,
                   case when min(mine) < max(mine) and min(theirs) < max(theirs) then corr(mine, theirs) end
                       as correlation
            from pairs group by all
        ), chance as (
            select version, other, sum(a.n * b.n)::double as met
            from (select version, other, mine as value, count(*) as n from pairs group by all) a
            join (select version, other, theirs as value, count(*) as n from pairs group by all) b
              using (version, other, value)
            group by all
        )
        select version, other, n, rate, other_rate, agreement,
               (identical - by_chance) / nullif(1 - by_chance, 0) as kappa, correlation, mean_difference
        from (
            select *, coalesce(met, 0) / (n * n) as by_chance
            from compared left join chance using (version, other)
        ) order by version, other
    """


def label_quality_sql(service: MLService, outcomes: str, predictions: str) -> str:
    """SQL that compares what every model version is worth under every two label definitions, on the same requests.

    Reads ``outcomes(request_id, model_version, label_version, score, value)``, and of ``predictions`` what a class or a
    list is. Columns: the model version, the two definitions, requests that both label, and what ``MEASURED`` names
    under each. Numbers and classes need nothing else; a list (``ranking.query``) counts as far as both definitions
    label its rows. Yes or no: AUC is null where the outcomes are not both 0 and 1, ties count one half.
    """
    task = service.task
    extras = {"multiclass": "class_scores", "ranking": "context"}.get(task)
    scored = f"(select request_id, model_version, {extras} from {predictions})"
    more = f"join {scored} using (request_id, model_version)" if extras else ""
    named = {
        "multiclass": ", class_scores",
        "ranking": f", json_extract_string(context, {literal('$.' + service.ranking.query)}) as list"
        if service.ranking
        else "",
    }.get(task, "")
    columns = ", ".join(f"a.{name}, b.{name} as other_{name}" for name in MEASURED[task])
    return f"""
        with pairs as (
            select a.model_version, a.label_version as version, b.label_version as other, a.request_id, a.score,
                   a.value, b.value as other_value
            from {outcomes} a join {outcomes} b on a.request_id = b.request_id and a.model_version = b.model_version
             and a.label_version < b.label_version
            where a.value is not null and b.value is not null and a.score is not null
        ), sides as (
            select model_version, version, other, is_other, score, if(is_other, other_value, value) as value{named}
            from pairs {more} cross join (select unnest([false, true]) as is_other)
        ), measured as ({_measured_sql(task, service.ranking.at_k if service.ranking else 0)})
        select a.model_version, a.version, a.other, a.n, {columns}
        from measured a join measured b on a.model_version = b.model_version and a.version = b.version
         and a.other = b.other and not a.is_other and b.is_other
        order by all
    """


GROUP = "model_version, version, other, is_other"


def _measured_sql(task: Task, at_k: int) -> str:
    """SQL of what a model is worth, per pair of definitions and side: reads ``sides``."""
    if task == "ranking":
        return lists_sql(at_k)
    if task == "multiclass":
        return classes_sql()
    return numbers_sql() if task == "regression" else yes_or_no_sql()


def yes_or_no_sql() -> str:
    """SQL of the share of positives, Brier score and AUC: the share of pairs of a positive and a negative that the
    ranks of the scores put in the right order."""
    positives = "sum(value)"
    area = f"(sum(place * value) - {positives} * ({positives} + 1) / 2) / ({positives} * (count(*) - {positives}))"
    return f"""
        select {GROUP}, count(*) as n, avg(value) as positive_share, avg(power(score - value, 2)) as brier,
               case when max(value) = 1 and min(value) = 0 and count(distinct value) = 2 then {area} end as auc
        from (
            select *, rank() over (partition by {GROUP} order by score)
                      + (count(*) over (partition by {GROUP}, score) - 1) / 2.0 as place
            from sides
        ) group by {GROUP}
    """


def numbers_sql() -> str:
    """SQL of the mean absolute error and the root of the mean squared error."""
    return f"""
        select {GROUP}, count(*) as n, avg(abs(score - value)) as mae, sqrt(avg(power(score - value, 2))) as rmse
        from sides group by {GROUP}
    """


def classes_sql() -> str:
    """SQL of log loss, accuracy and macro F1; the most probable class is the answer, the first of equals.

    2 TP / (2 TP + FP + FN) of a class is the mean of *right* over its mentions, as an answer or as an outcome.
    """
    chance = f"least(greatest(coalesce(class_scores[value::integer + 1], 0), {SMALLEST_CHANCE}), 1 - {SMALLEST_CHANCE})"
    return f"""
        with answered as (
            select *, list_position(class_scores, list_max(class_scores)) - 1 as answer,
                   -ln(case when value >= 0 then {chance} else {SMALLEST_CHANCE} end) as loss
            from sides
        ), by_class as (
            select {GROUP}, avg(is_right) as f1
            from (select {GROUP}, (answer = value)::integer as is_right, unnest([answer::double, value]) as class
                  from answered)
            group by {GROUP}, class
        )
        select {GROUP}, count(*) as n, avg(loss) as log_loss, avg((answer = value)::integer) as accuracy,
               any_value(macro_f1) as macro_f1
        from answered join (select {GROUP}, avg(f1) as macro_f1 from by_class group by {GROUP}) using ({GROUP})
        group by {GROUP}
    """


def lists_sql(at_k: int) -> str:
    """SQL of the mean discounted gain of the first ``at_k`` rows of a list over the best possible one, and of the
    share of rows with a gain.

    Rows of equal score share their mean gain; lists without any gain say nothing about order.
    """
    return f"""
        with placed as (
            select *, avg(value) over (partition by {GROUP}, list, score) as shared,
                   row_number() over (partition by {GROUP}, list order by score desc) as place,
                   row_number() over (partition by {GROUP}, list order by value desc) as best_place
            from sides
        ), by_list as (
            select {GROUP}, list, count(*) as n, sum((value > 0)::integer) as clicks,
                   sum(if(place <= {at_k}, shared / log2(place + 1), 0)) as reached,
                   sum(if(best_place <= {at_k}, value / log2(best_place + 1), 0)) as best
            from placed group by {GROUP}, list
        )
        select {GROUP}, sum(n) as n, avg(reached / best) filter (where best > 0) as ndcg, sum(clicks) / sum(n) as ctr
        from by_list group by {GROUP}
    """


def class_rates_sql(service: MLService, labels: str) -> str:
    """SQL of how often every two definitions say each class, on the requests that both label: version, other, class,
    rate, other_rate. A class that nobody declared is called *none of them*."""
    names = ", ".join(literal(name) for name in service.label.classes)
    return f"""
        with {pairs_sql(labels)},
        classes as (select unnest(range(-1, {len(service.label.classes)})) as place)
        select version, other, coalesce([{names}][place + 1], 'none of them') as class,
               avg((mine = place)::integer) as rate, avg((theirs = place)::integer) as other_rate
        from pairs cross join classes group by version, other, place order by version, other, place < 0, place
    """
