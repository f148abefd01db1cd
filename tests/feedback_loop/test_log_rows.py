"""What a log may say of an answer: words that nobody declared are no answer, and a chance is the log's own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from toy_log import a_log, a_log_service, answers, answers_of, deliver_log, payments
from toy_stories import on, stored
from toy_world import CALENDAR, a_world, close, deliver, span

from mlops_assets import DriftPolicy
from mlops_assets.closing.world import World
from mlops_assets.errors import NothingToDoError
from mlops_assets.explain import explain_request, story_lines

pytestmark = pytest.mark.slow

DAY = span(0, 0)[0]


@pytest.fixture(scope="module")
def sloppy(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A day whose log writes roles, statuses and keys otherwise than declared; arm a is chosen nine times of ten."""
    log = a_log(propensity="case when arm = 'a' then 0.9 else 0.1 end")
    world = a_world(tmp_path_factory.mktemp("sloppy"), a_log_service(prediction_log=log))
    rows = answers_of(DAY)
    rows.loc[5:7, "role"] = "Champion"
    rows.loc[8, "role"], rows.loc[9, "status"], rows.loc[10, "status"] = None, "OK", None
    rows.loc[11, "model"], rows.loc[12, "request"] = None, " "
    deliver(world.home.landing, "answers", DAY, rows)
    close(world, [DAY])
    return world


def test_a_row_in_words_that_nobody_declared_is_no_answer_and_is_kept_apart(sloppy: World) -> None:
    conflicts, kept = stored(sloppy, "conflicts"), stored(sloppy, "predictions")
    assert sorted(conflicts["differs"]) == ["model_version", "request_id", *["role"] * 4, *["status"] * 2]
    assert conflicts["is_unfit"].all()
    names = [f"{DAY}-{n:02d}" for n in range(5, 13)]
    assert not kept["request_id"].isin(names)[kept["role"] == "champion"].any()
    assert set(kept["role"]) == {"champion", "shadow"} and kept["served"].notna().all()


def test_the_contract_says_which_word_it_was_and_which_there_are(sloppy: World) -> None:
    (message,) = stored(sloppy, "contracts").query("outcome == 'conflicting'")["message"]
    assert message == (
        f"source 'answers', day {DAY}: 8 row(s) are no answers, first request ' ' for its request_id; see table "
        "conflicts. Write down the request_id of every answer, or name another column in prediction_log > request_id."
    )


def test_whoever_asks_for_such_a_request_is_told_that_it_was_kept_apart(sloppy: World) -> None:
    """One row names no request; of another request the shadow's answer is left."""
    with pytest.raises(NothingToDoError, match="' ' of loans has no prediction: .* no answer for its request_id, "):
        explain_request([sloppy], " ")
    text = "\n".join(story_lines(explain_request([sloppy], f"{DAY}-09")))
    assert ", is no answer in status: see table conflicts" in text


def test_a_wrong_role_is_named_with_those_that_exist(tmp_path: Path) -> None:
    world = a_world(tmp_path, a_log_service(prediction_log=a_log(role="upper(role)")))
    deliver(world.home.landing, "answers", DAY, answers_of(DAY))
    close(world, [DAY])
    (message,) = stored(world, "contracts").query("outcome == 'conflicting'")["message"]
    assert message == (
        f"source 'answers', day {DAY}: 80 row(s) are no answers, first request '{DAY}-00' for its role ('CHAMPION'); "
        "see table conflicts. Roles are champion, canary, fallback, shadow, prior: translate the log's words in "
        "prediction_log > role."
    )


def test_a_log_without_line_numbers_may_repeat_its_rows_too(tmp_path: Path) -> None:
    """Its key is that of an answer: ten rows stand there twice, three a second time with another score."""
    source = answers(key=("request", "model"))
    world = a_world(tmp_path, a_log_service(sources=(source, payments())))
    rows = answers_of(DAY)
    deliver(world.home.landing, "answers", DAY, pd.concat([rows, rows[20:30], rows[30:33].assign(score=0.999)]))
    close(world, [DAY])
    kept, conflicts = stored(world, "predictions"), stored(world, "conflicts")
    assert len(kept) == len(rows) and not kept.duplicated(["request_id", "model_version"]).any()
    assert sorted(conflicts["request_id"]) == [f"{DAY}-{n}" for n in (30, 31, 32)]
    seen = stored(world, "profiles").query("subject == 'log'").set_index("column_name")["total"]
    assert (seen["repeated"], seen["conflicting"]) == (10, 3)


def test_the_chance_of_a_version_is_what_the_log_says(sloppy: World) -> None:
    kept = stored(sloppy, "predictions").query("served")
    arm = answers_of(DAY)[:60].set_index("request")["arm"]
    expected = kept["request_id"].map(arm).map({"a": 0.9, "b": 0.1})
    assert list(kept["propensity"]) == pytest.approx(list(expected)) and set(expected) == {0.9, 0.1}


def test_a_sale_explains_the_log_of_its_day_when_that_log_comes_two_days_later(tmp_path: Path) -> None:
    """Twice the usual incomes ask on day 17, which is logged on day 19."""
    days, lag = span(0, 19), 2
    sale = {
        "id": "sale", "kind": "campaign", "start": str(days[17]), "end": str(days[17]), "declared_on": str(days[0]),
        "owner": "mia@example.com", "reason": "a mailing to the rich", "expiry": str(days[17]),
        "features": ["income"], "direction": "up", "max_size": {"mean": 50.0, "distance": 1.0},
    }  # fmt: skip
    (tmp_path / "events.yaml").write_text(yaml.safe_dump({"events": [sale]}))
    policy = DriftPolicy(known_events=str(tmp_path / "events.yaml"))
    world = a_world(tmp_path / "home", a_log_service(prediction_log=a_log(log_lag_days=lag), drift=policy))
    deliver_log(world.home.landing, days)
    for answered, told in zip(days, days[lag:], strict=False):
        rows = answers_of(answered)
        rows = rows.assign(income=rows["income"] * (2 if told == days[19] else 1))
        deliver(world.home.landing, "answers", told, rows.assign(available_at=CALENDAR.start_of(told)))
    close(world, days)
    means = on(stored(world, "drift"), days[19]).query("statistic == 'mean' and column_name == 'income'")
    assert set(means["tier"]) == {"expected"} and set(means["event"]) == {"sale"}
