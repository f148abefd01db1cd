"""An old champion is fed by the declaration it was trained on, or not at all: a column that is gone is no null."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from toy_stories import on, run, states, stored
from toy_world import a_service, a_world, close, deliver, deliver_all, orders, orders_file, span

from mlops_assets import MLService, Request
from mlops_assets.adapters.engine import open_engine
from mlops_assets.closing.features import needed_versions
from mlops_assets.closing.standing import proposals
from mlops_assets.closing.world import World
from mlops_assets.day_loop import declare
from mlops_assets.errors import LedgerError
from mlops_assets.feature_loop.point_in_time import view_sql
from mlops_assets.people import sign
from mlops_assets.service.feature_versions import columns_read, lost_columns, why_not_rolled_back

DAYS = span(0, 20)


def day(number: int) -> date:
    return DAYS[number]


def contracts_without(column: str, folder: Path) -> Path:
    """The contract suites without what they promise about one column."""
    folder.mkdir()
    for suite in Path(a_service().contracts).glob("*.json"):
        promised = json.loads(suite.read_text())
        promised["expectations"] = [one for one in promised["expectations"] if one["kwargs"].get("column") != column]
        (folder / suite.name).write_text(json.dumps(promised))
    return folder


def lighter(service: MLService, **further: object) -> MLService:
    """The same service after the shop stopped weighing parcels."""
    columns = {name: kind for name, kind in orders().columns.items() if name != "weight_kg"}
    request = Request(**{**service.request.model_dump(), "columns": ("depot",)})
    changes = {"sources": (orders(columns=columns), service.sources[1]), "views": service.views[1:], "request": request}
    return a_service(**{"model": service.model, **changes, **further})


def test_a_feature_version_reads_what_its_expressions_name_and_no_more() -> None:
    read = columns_read(a_service().feature_set)
    assert read["orders"] == {"parcel", "depot", "weight_kg", "due_at", "event_at", "available_at"}
    assert read["scans"] == {"parcel", "depot", "delay_min", "event_at", "available_at"}
    unread = orders(columns={**orders().columns, "colour": "VARCHAR"})
    assert lost_columns(a_service(sources=(unread, a_service().sources[1])).feature_set, a_service().sources) == {}


def test_a_version_whose_column_is_gone_cannot_be_rolled_back_to_and_the_sentence_says_why() -> None:
    old = a_service().feature_set
    assert why_not_rolled_back("2024-03-10-champion-abc", old, a_service().sources) is None
    assert why_not_rolled_back("2024-03-10-champion-abc", old, lighter(a_service()).sources) == (
        f"2024-03-10-champion-abc cannot answer: its feature version {old.version} reads orders.weight_kg, no longer "
        "declared. Declare that again, or choose a version that does not read it."
    )
    assert lost_columns(old, a_service().sources[:1]) == {
        "scans": ("available_at", "delay_min", "depot", "event_at", "parcel")
    }, "a source that is gone has lost everything"


def test_a_version_that_waits_while_its_column_goes_is_not_signed_but_may_be_refused(tmp_path: Path) -> None:
    world, newer = a_world(tmp_path), a_world(tmp_path, lighter(a_service()))
    declare(world)
    declare(newer)
    proposal = {
        "service": "parcels", "epoch": 1, "day": day(9), "decision_id": "d9", "role": "champion",
        "model_version": "v9", "mlflow_version": "1", "feature_version": world.feature_version, "fingerprint": "f",
        "model_sha256": "s", "train_key": "k",
    }  # fmt: skip
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "proposals", [proposal])
    mia = {"by": "Mia", "reason": "better"}
    assert "v9 (champion) would answer from" in sign([world], "d9", "approved", **mia, is_dry_run=True)
    for is_dry_run in (True, False):
        with pytest.raises(LedgerError) as refused:
            sign([newer], "d9", "approved", **mia, is_dry_run=is_dry_run)
        assert str(refused.value) == (
            f"service 'parcels': v9 cannot answer: its feature version {world.feature_version} reads orders.weight_kg, "
            "no longer declared. Declare that again, or choose a version that does not read it."
        )
    assert list(proposals(newer)) == ["d9"] and not newer.releases(), "nothing was written"
    assert "d9 is refused; the champion stays" in sign([newer], "d9", "rejected", **mia)


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A champion since day 10; from day 12 on its weight is neither declared nor delivered; trained again on day 16."""
    folder = tmp_path_factory.mktemp("weight")
    world = a_world(folder, a_service(model=a_service().model.model_copy(update={"first_training": day(9)})))
    deliver_all(world.home.landing, span(0, 17))
    close(world, span(0, 11))
    for number in range(12, 18):
        deliver(world.home.landing, "orders", day(number), orders_file(day(number)).drop(columns="weight_kg"))
    newer = a_world(folder, lighter(world.service, contracts=str(contracts_without("weight_kg", folder / "contracts"))))
    close(newer, span(12, 17))
    return newer


@pytest.mark.slow
def test_days_of_a_champion_whose_column_is_gone_block_until_another_version_answers(after: World) -> None:
    assert [d for d, kind in states(after).items() if kind == "blocked"] == span(12, 16)
    champion, newer = [row for row in after.releases() if row["role"] == "champion"]
    assert [row["day"] for row in (champion, newer)] == [day(9), day(16)]
    assert after.ledger.closings(after.name)[day(12)]["reason"] == (
        f"source 'orders', day {day(12)}: column weight_kg is gone, which feature version "
        f"{champion['feature_version']} of champion {champion['model_version']} reads. Declare the column again, or "
        "release a version that does not read it"
    )
    verdict = on(stored(after, "verdicts"), day(12)).iloc[0]
    assert verdict["tier"] == "unknown" and "weight_kg is gone" in verdict["reason"]
    assert [row["cause"] for row in after.ledger.rows("incidents", after.name)] == ["orders"], "one cause, one incident"
    reasons = next(row["reasons"] for row in after.ledger.effective("gates", after.name) if row["day"] == day(16))
    assert reasons[-1] == f"better than the prior, and {champion['model_version']} reads a column that is gone"
    predictions = stored(after, "predictions")
    assert not set(span(12, 16)) & set(predictions["day"])
    assert set(on(predictions, day(17))["model_version"]) >= {newer["model_version"]}


@pytest.mark.slow
def test_such_days_computed_again_say_the_same_whatever_is_declared_then(after: World) -> None:
    run(after, span(10, 17))
    assert after.ledger.rows("divergences", after.name) == []
    weighing = a_world(after.home.path, a_service(model=after.service.model))
    run(weighing, span(10, 17))
    assert {row["table_name"] for row in after.ledger.rows("divergences", after.name)} == set()


@pytest.mark.slow
def test_a_range_needs_every_holder_in_it_and_the_one_before_but_none_whose_column_is_gone(after: World) -> None:
    new, old = after.feature_version, after.releases()[0]["feature_version"]
    assert needed_versions(after, span(9, 17)) == [new]
    weighing = a_world(after.home.path, a_service(model=after.service.model))
    assert weighing.feature_version == old
    assert needed_versions(weighing, span(9, 9)) == [old]
    assert needed_versions(weighing, span(9, 17)) == needed_versions(weighing, span(17, 18)) == [old, new]


def test_the_version_that_a_rollback_would_bring_back_is_computed_not_just_the_one_before(tmp_path: Path) -> None:
    """The second champion broke a rule in its time: the third one would give its place back to the first."""
    windows = [(24,), (48,), (72,)]
    services = [a_service(views=(a_service().views[1].model_copy(update={"windows_hours": one}),)) for one in windows]
    versions = [service.feature_set.version for service in services]
    world = a_world(tmp_path, services[2])
    for service in services:
        declare(a_world(tmp_path, service))
    event = {"service": "parcels", "epoch": 1, "mlflow_version": "1", "fingerprint": "f", "model_sha256": "s"}
    releases = [
        {**event, "day": day(n * 10), "decision_id": f"d{n}", "role": "champion", "model_version": f"v{n}",
         "effective_at": world.calendar.end_of(day(n * 10)), "feature_version": versions[n], "train_key": "k"}
        for n in range(3)
    ]  # fmt: skip
    breach = {
        "service": "parcels", "epoch": 1, "day": day(15), "incident_id": "i", "event": "opened",
        "cause": "quality:brier", "tier": "severe", "text": "up",
    }  # fmt: skip
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "releases", releases)
    assert needed_versions(world, span(25, 26)) == [versions[2], versions[1]], "the second one was green"
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "incidents", [breach])
    assert needed_versions(world, span(25, 26)) == [versions[2], versions[0]]


@pytest.mark.slow
def test_the_ledger_keeps_the_sql_that_computes_a_feature_version(after: World) -> None:
    kept = {row["feature_version"]: row["compiled"] for row in after.ledger.rows("declarations", after.name)}
    features = after.service.feature_set
    assert set(kept) == {features.version, after.releases()[0]["feature_version"]}
    for view in features.views:
        query = view_sql(features, view, spine="spine", sources={"orders": '"orders"', "scans": '"scans"'}).strip()
        assert f"-- {view.name}\n{query};" in kept[features.version]
    with open_engine() as con:
        con.execute("create table orders (parcel text, depot text, due_at timestamp, available_at timestamp)")
        con.execute(
            "create table scans (parcel text, depot text, delay_min double, event_at timestamp, available_at timestamp)"
        )
        con.execute("create table spine (_row bigint, request_id text, predicted_at timestamp, depot text)")
        for statement in con.extract_statements(kept[features.version]):
            con.execute(statement).fetchall()
