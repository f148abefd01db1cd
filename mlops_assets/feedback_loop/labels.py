"""Outcomes in the world become label events: append-only, and a correction is a new event."""

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.feedback_loop.told import told_sql
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.sources import Source


def label_events_sql(label: LabelDefinition, source: Source, *, stored: str, listed: str, into: str) -> str:
    """SQL that adds the label events of some days to ``into`` (columns of table ``labels``).

    Reads ``stored`` and ``listed`` as ``told_sql`` does: a label is known when its source row was told. A withdrawn
    row is an event with value null. A definition reads what is told from its ``effective_from`` on.
    """
    since = f" where listed_on >= {literal(label.effective_from)}" if label.effective_from else ""
    return f"""
        insert into {quote(into)} by name
        with told as ({told_sql(source, stored=stored, listed=listed)})
        select listed_on as day, ({label.expressions["request_id"]})::varchar as request_id,
               {literal(label.version)} as label_version,
               case when withdrawn then null else {label.stored_value} end as value,
               case when withdrawn then null else ({label.kpi or "null"})::double end as kpi,
               {quote(source.event_at)} as event_at, told_at as known_at,
               {literal(source.name)} || '/' || day || '/' || generation as source
        from told{since}
    """


def label_timing_sql(*, labels: str, predictions: str, needs_decision: bool, has_kpi: bool) -> str:
    """SQL of a relation to be profiled: one row per label event of the block's days, beside the answer it is about.

    ``delay_hours``: from the answer until the label was known; ``own_decision``: 1 if the label only exists because
    the answer was a positive decision; ``per_kpi``: the day's labels per unit of KPI, on one of its rows.
    """
    of_all = "sum(l.value) over of_day / nullif(sum((l.kpi * 1e6)::hugeint) over of_day / 1e6, 0)"
    is_one = "row_number() over (partition by l.day, l.label_version order by l.request_id, l.known_at) = 1"
    ratio = f"case when {is_one} then {of_all} end" if has_kpi else "null::double"
    decided = "coalesce(p.decision, false)::integer" if needs_decision else "null::integer"
    return f"""
        select l.day, l.label_version, round(epoch(l.known_at - p.predicted_at) / 3600.0, 9) as delay_hours,
               {decided} as own_decision, round({ratio}, 9) as per_kpi
        from {quote(labels)} l join {quote(predictions)} p on p.request_id = l.request_id and p.served
        where l.day in (select day from block_days)
        window of_day as (partition by l.day, l.label_version)
    """


def label_agreement_sql(labels: str) -> str:
    """SQL that compares every two label versions on the requests that both of them label, by the newest event.

    Columns: both versions, requests, both means (rates of yes or no), the share of equal labels, and Cohen's kappa
    (Educational and Psychological Measurement 20, 1960) over all values that occur: agreement beyond chance, 1 is
    perfect, 0 is chance, null if there is no other.
    """
    return f"""
        with newest as (
            select request_id, label_version, arg_max_null(value, known_at) as value
            from {labels} group by all
        ), pairs as (
            select a.label_version as version, b.label_version as other, a.value as mine, b.value as theirs
            from newest a join newest b on a.request_id = b.request_id and a.label_version < b.label_version
            where a.value is not null and b.value is not null
        ), compared as (
            select version, other, count(*) as n, avg(mine) as rate, avg(theirs) as other_rate,
                   avg((mine = theirs)::integer) as agreement
            from pairs group by all
        ), chance as (
            select version, other, sum(a.n * b.n)::double as met
            from (select version, other, mine as value, count(*) as n from pairs group by all) a
            join (select version, other, theirs as value, count(*) as n from pairs group by all) b
              using (version, other, value)
            group by all
        )
        select version, other, n, rate, other_rate, agreement,
               (agreement - by_chance) / nullif(1 - by_chance, 0) as kappa
        from (
            select *, coalesce(met, 0) / (n * n) as by_chance
            from compared left join chance using (version, other)
        ) order by version, other
    """


def label_quality_sql(outcomes: str) -> str:
    """SQL that compares what every model version is worth under every two label definitions, on the same requests.

    Reads ``outcomes(request_id, model_version, label_version, score, value)``. Columns: the model version, the two
    definitions, requests that both label, and under each: the positive share, the mean squared distance between score
    and outcome (for a yes-or-no outcome the Brier score), and the AUC (ties count one half; null where the outcomes
    are not both 0 and 1).
    """
    return f"""
        with pairs as (
            select a.model_version, a.label_version as version, b.label_version as other, a.score, a.value,
                   b.value as other_value
            from {outcomes} a join {outcomes} b on a.request_id = b.request_id and a.model_version = b.model_version
             and a.label_version < b.label_version
            where a.value is not null and b.value is not null and a.score is not null
        ), ranked as (
            select *, rank() over (partition by model_version, version, other order by score)
                      + (count(*) over (partition by model_version, version, other, score) - 1) / 2.0 as place
            from pairs
        )
        select model_version, version, other, count(*) as n,
               avg(value) as positive_share, avg(other_value) as other_positive_share,
               avg(power(score - value, 2)) as brier, avg(power(score - other_value, 2)) as other_brier,
               {_auc_sql("value")} as auc, {_auc_sql("other_value")} as other_auc
        from ranked group by all order by model_version, version, other
    """


def _auc_sql(value: str) -> str:
    """SQL of the share of pairs of a positive and a negative that the ranks put in the right order."""
    positives = f"sum({value})"
    area = f"(sum(place * {value}) - {positives} * ({positives} + 1) / 2) / ({positives} * (count(*) - {positives}))"
    return f"case when max({value}) = 1 and min({value}) = 0 and count(distinct {value}) = 2 then {area} end"
