"""A model that runs elsewhere leaves a log: every answer counts once, and what contradicts itself is shown."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from states import assert_same
from toy_log import (
    a_log,
    a_log_service,
    answers,
    answers_of,
    deliver_log,
    payments,
    payments_file,
    truth_of,
    twenty_days,
)
from toy_stories import copy_of, on, states, stored
from toy_world import CALENDAR, a_service, a_world, close, deliver, span

from mlops_assets import DeclarationError, UnknownNameError
from mlops_assets.closing.world import World
from mlops_assets.day_loop import open_epoch
from mlops_assets.errors import RangeError
from mlops_assets.explain import explain_request
from mlops_assets.services import check_sharing

DAYS = span(0, 19)
KEY = "a secret that only the environment has"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Twenty days with repeats, conflicts, late rows and a late file, in blocks."""
    return twenty_days(tmp_path_factory.mktemp("log") / "blocks", one_by_one=span(0, -1))


def brier(world: World, prediction_day: object) -> float:
    """The newest Brier score of what was served on a day."""
    rows = stored(world, "quality")
    is_asked = (rows["prediction_day"].dt.date == prediction_day) & (rows["metric"] == "brier")
    rows = rows[is_asked & (rows["version"] == "served") & (rows["slice"] == "all") & (rows["window_days"] == 1)]
    return float(rows.sort_values("day")["value"].iloc[-1])


@pytest.mark.slow
def test_repeats_conflicts_and_late_files_give_the_same_rows_day_by_day_as_in_blocks(
    told: World, tmp_path: Path
) -> None:
    assert_same(told, twenty_days(tmp_path, one_by_one=span(5, 14)))


def test_a_retry_of_the_high_scores_changes_no_metric(told: World) -> None:
    """Scores of 0.7 and more were written twice on day 5: counted as repeats, and quality is that of the plain log."""
    five = DAYS[5]
    rows = answers_of(five)[:60].merge(truth_of(five)[["request", "defaulted"]], on="request").dropna(subset="score")
    plain = float(np.mean((rows["score"] - rows["defaulted"]) ** 2))
    doubled = pd.concat([rows, rows[rows["score"] >= 0.7]])
    wrong = float(np.mean((doubled["score"] - doubled["defaulted"]) ** 2))

    assert brier(told, five) == pytest.approx(plain, abs=1e-9)
    assert abs(wrong - plain) > 0.005, "the story needs a retry that would have moved the metric"
    assert counted(told, five, "repeated") == (answers_of(five)["score"] >= 0.7).sum()


def counted(world: World, day: object, what: str) -> float:
    """How many rows of a day were repeated, conflicting, late or failed."""
    rows = stored(world, "profiles")
    return float(
        rows[(rows["subject"] == "log") & (rows["day"] == day) & (rows["column_name"] == what)]["total"].iloc[0]
    )


def test_a_row_that_contradicts_an_earlier_one_is_kept_apart_and_the_first_one_counts(told: World) -> None:
    """Days later, three rows of day 6 come again with another score, ten unchanged."""
    conflicts = stored(told, "conflicts")
    assert list(conflicts["request_id"]) == [f"{DAYS[6]}-{n}" for n in (30, 31, 32)]
    assert set(conflicts["differs"]) == {"score"} and set(conflicts["day"]) == {DAYS[8]}
    assert counted(told, DAYS[8], "repeated") == 10

    first = answers_of(DAYS[6]).set_index("request")["score"]
    kept = stored(told, "predictions").set_index("request_id")
    for request in conflicts["request_id"]:
        assert kept.loc[[request], "score"].max() == pytest.approx(first[request].max())
    verdict = stored(told, "verdicts").set_index("day").loc[DAYS[8]]
    assert verdict["verdict"] == "investigate"
    assert "3 row(s) contradict an earlier row" in verdict["reason"] and f"'{DAYS[6]}-30' in score" in verdict["reason"]


def test_a_contradiction_fails_the_contract_of_the_log_and_keeps_what_else_it_promised(told: World) -> None:
    contracts = stored(told, "contracts")
    of_log = contracts[(contracts["source"] == "answers") & (contracts["day"] == DAYS[8])]
    (broken,) = of_log[~of_log["success"]].to_dict("records")
    assert broken["outcome"] == "conflicting" and broken["observed"] == (
        "3 row(s) contradict an earlier row of the same request and model version"
    )
    assert broken["message"].startswith(f"source 'answers', day {DAYS[8]}: 3 row(s) contradict")
    assert broken["message"].endswith("Log every answer once, or under its own request id.")
    assert set(of_log[of_log["success"]]["outcome"]) == {"accepted"}
    assert not (contracts["outcome"] == "conflicting")[contracts["day"] != DAYS[8]].any()


def test_late_rows_belong_to_the_day_they_came_and_count_for_the_day_they_answered(told: World) -> None:
    ten = on(stored(told, "predictions"), DAYS[10])
    assert (ten["prediction_day"].dt.date == DAYS[9]).sum() == 30 and counted(told, DAYS[10], "late") == 30
    nine = answers_of(DAYS[9])[:60].merge(truth_of(DAYS[9])[["request", "defaulted"]], on="request").dropna()
    assert brier(told, DAYS[9]) == pytest.approx(float(np.mean((nine["score"] - nine["defaulted"]) ** 2)), abs=1e-9)


def test_a_late_file_is_told_on_the_day_that_lists_it_and_its_own_day_stays_blocked(told: World) -> None:
    assert states(told)[DAYS[12]] == "blocked" and on(stored(told, "predictions"), DAYS[12]).empty
    late = on(stored(told, "predictions"), DAYS[14])
    assert (late["prediction_day"].dt.date == DAYS[12]).sum() == 80
    assert (late["logged_at"][late["prediction_day"].dt.date == DAYS[12]] < CALENDAR.end_of(DAYS[14])).all()


def test_the_features_of_a_late_file_are_seen_on_the_day_that_lists_it(told: World) -> None:
    """The monitor looks at as many requests as were answered, and the story of a late one has its features."""
    twelve, fourteen = answers_of(DAYS[12])[:60], answers_of(DAYS[14])[:60]
    found = on(stored(told, "features"), DAYS[14]).set_index("request_id")["income"]
    for rows in (twelve, fourteen):
        assert list(found[rows["request"]]) == pytest.approx(list(rows["income"]))
    seen = stored(told, "profiles").query("column_name == 'income'").set_index("day")["n"]
    assert seen[DAYS[14]] == 120 and seen[DAYS[13]] == 60
    sync = stored(told, "loop_sync").query("check == 'monitoring'").set_index("day")["state"]
    assert sync[DAYS[14]] == "agrees"
    told_again = explain_request([told], twelve["request"][7])["features"]
    assert told_again == [{"name": "income", "stored": found[twelve["request"][7]],
                           "computed_again": found[twelve["request"][7]], "is_same": True}]  # fmt: skip


def test_a_shadow_is_no_repeat_and_answers_nobody_and_a_failure_is_a_row(told: World) -> None:
    zero = on(stored(told, "predictions"), DAYS[0])
    assert len(zero) == 80 and set(zero[zero["role"] == "shadow"]["served"]) == {False}
    failed = zero[zero["status"] == "timeout"]
    assert len(failed) == 2 and failed["score"].isna().any() and not failed["served"].any()
    assert zero[zero["served"]]["request_id"].is_unique


def test_context_columns_become_slices_and_logged_features_are_profiled(told: World) -> None:
    assert {"all", "arm=a", "arm=b"} <= set(stored(told, "quality")["slice"])
    profiles = stored(told, "profiles")
    income = profiles[(profiles["column_name"] == "income") & (profiles["day"] == DAYS[3])]
    assert float((income["total"] / income["n"]).iloc[0]) == pytest.approx(answers_of(DAYS[3])["income"][:60].mean())


def test_nothing_of_a_user_is_stored_that_was_not_named(told: World) -> None:
    assert not [name for name in ("predictions", "features") if "client-" in stored(told, name).to_csv()]


def test_named_ids_are_stored_as_keyed_hashes_and_still_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = ("request", "customer")
    sources = (answers(pseudonymise=named), payments(pseudonymise=named))
    world = a_world(tmp_path, a_log_service(sources=sources))
    deliver_log(world.home.landing, DAYS[:4])
    with pytest.raises(DeclarationError, match="MLOPS_HMAC_KEY_LOANS is not set"):
        close(world, DAYS[:1])
    monkeypatch.setenv("MLOPS_HMAC_KEY_LOANS", KEY)
    close(world, DAYS[:4])

    expected = {hmac.new(KEY.encode(), f"{DAYS[0]}-{n:02d}".encode(), hashlib.sha256).hexdigest() for n in range(60)}
    assert set(on(stored(world, "predictions"), DAYS[0])["request_id"]) == expected
    assert set(stored(world, "labels")["request_id"]) & expected
    written = b"".join(path.read_bytes() for path in (tmp_path / "tables").rglob("*.parquet"))
    assert str(DAYS[0]).encode() + b"-07" not in written and KEY.encode() not in written


def test_services_that_share_a_source_share_its_calendar_and_no_pseudonyms() -> None:
    """Each service has a key of its own, so the one that reads a file first would decide how the ids are stored."""
    loans, cards = a_log_service(), a_log_service(name="cards")
    check_sharing([loans, cards])
    with pytest.raises(DeclarationError) as refused:
        check_sharing([loans, a_log_service(name="cards", timezone="America/New_York")])
    assert str(refused.value) == (
        "service 'cards' > sources > answers: is shared with 'loans', whose days are those of Europe/Vienna, not of "
        "America/New_York. Share one calendar, or give each service its own source."
    )
    hidden = a_log_service(sources=(answers(pseudonymise=("customer",)), payments()))
    for pair in ([hidden, cards], [cards, hidden]):
        with pytest.raises(DeclarationError, match="answers: stores pseudonyms and is shared with .* another key"):
            check_sharing(pair)


def test_a_log_may_call_its_columns_as_we_do() -> None:
    """Most do: a column ``request_id`` is no reason to refuse a log."""
    columns = {"request_id" if name == "request" else name: kind for name, kind in answers().columns.items()}
    log = a_log(request_id="request_id")
    service = a_log_service(sources=(answers(columns=columns), payments()), prediction_log=log)
    assert service.prediction_log is not None
    asked = service.prediction_log.request(service.source("answers"))
    assert asked.request_id == "request_id" and "request_id" not in asked.columns and "income" in asked.columns


def test_an_answer_from_the_future_is_a_conflict(tmp_path: Path) -> None:
    """A clock that is wrong on one server: those answers would have been readable before they were given."""
    wrong_clock = a_log(served_at="case when arm = 'a' then event_at + interval 15 minute else event_at end")
    world = a_world(tmp_path, a_log_service(prediction_log=wrong_clock))
    deliver(world.home.landing, "answers", DAYS[0], answers_of(DAYS[0]))
    close(world, DAYS[:1])
    found, is_wrong = stored(world, "conflicts"), answers_of(DAYS[0])["arm"] == "a"
    assert len(found) == is_wrong.sum() and set(found["differs"]) == {"served_at"}
    assert len(stored(world, "predictions")) == (~is_wrong).sum()


def test_a_log_without_its_source_and_a_service_without_any_score_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="prediction_log > source: no source is named 'answer'. Did you mean"):
        a_log_service(prediction_log=a_log(source="answer"))
    with pytest.raises(UnknownNameError, match="prediction_log > score: no column is named 'scor'"):
        a_log_service(prediction_log=a_log(score="scor"))
    with pytest.raises(ValueError, match="declare a model that is trained here, or the prediction_log"):
        a_service(model=None)


def test_a_new_context_column_contradicts_no_earlier_row_and_a_backfill_keeps_the_slices_of_then(
    tmp_path: Path,
) -> None:
    """From day 1 on the customer is logged too. Ten rows of day 0 come again; day 0 is then computed again."""
    world, (zero, one) = a_world(tmp_path, a_log_service()), DAYS[:2]
    rows = answers_of(zero)
    deliver(world.home.landing, "answers", zero, rows)
    close(world, [zero])
    before = {name: on(stored(world, name), zero) for name in ("predictions", "features", "quality")}
    late = CALENDAR.start_of(one) + timedelta(hours=1)
    again = rows[5:15].assign(line=rows["line"] + 5000, available_at=late)
    deliver(world.home.landing, "answers", one, pd.concat([answers_of(one), again]))
    declared = a_log(context={"arm": "arm", "customer": "customer"})
    wider = World(a_log_service(prediction_log=declared), world.home)
    close(wider, [one])
    assert stored(wider, "conflicts").empty and counted(wider, one, "repeated") == 10

    close(wider, [zero])
    for name in ("predictions", "features"):
        pd.testing.assert_frame_equal(on(stored(wider, name), zero), before[name])
    assert not [row for row in wider.ledger.rows("divergences", "loans") if row["table_name"] in before]


def test_corrections_are_new_rows_and_both_days_keep_their_answer(told: World, tmp_path: Path) -> None:
    """Twenty outcomes of day 13 are turned round after its window is over: day 20 says so, the old stays."""
    world, day, later = copy_of(told, tmp_path / "corrected"), DAYS[13], span(20, 20)
    for arrival in DAYS[13:16]:
        rows = payments_file(arrival)
        is_hit = rows["request"].str.startswith(str(day)) & (rows["request"].str[-2:].astype(int) < 20)
        deliver(world.home.landing, "payments", arrival, rows.assign(defaulted=rows["defaulted"] ^ is_hit))
    deliver(world.home.landing, "answers", later[0], answers_of(later[0]))
    deliver(world.home.landing, "payments", later[0], payments_file(later[0]))
    close(world, later)

    rows, truth = answers_of(day)[:60], truth_of(day)[["request", "defaulted"]]
    before = rows.merge(truth, on="request").dropna(subset="score")
    after = before.assign(defaulted=before["defaulted"] ^ (before["request"].str[-2:].astype(int) < 20))
    expected = [float(np.mean((known["score"] - known["defaulted"]) ** 2)) for known in (before, after)]
    quality = stored(world, "quality").query("metric == 'brier' and version == 'served' and slice == 'all'")
    is_day = (quality["prediction_day"].dt.date == day) & (quality["window_days"] == 1)
    asked = quality[is_day & quality["state"].isin(["final", "restated"])].sort_values("day")
    assert list(asked["state"]) == ["final", "restated"] and asked["day"].iloc[-1] == later[0]
    assert list(asked["value"]) == pytest.approx(expected, abs=1e-9)
    assert abs(expected[0] - expected[1]) > 0.01


def test_answers_that_others_gave_are_not_decided_again(told: World) -> None:
    with pytest.raises(RangeError, match="service 'loans': its predictions were ingested, so they cannot be decided"):
        open_epoch(told, DAYS[5], by="Mia")
    assert told.ledger.epoch("loans") == 1
