"""Pseudonyms: an id becomes a keyed hash before anything of ours stores it; the key is only in the environment.

HMAC-SHA256 (Krawczyk, Bellare, Canetti, RFC 2104, 1997), because a plain hash of a small id space is reversed by
hashing all of it. Destroying the key makes every stored pseudonym meaningless.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING

import duckdb

from mlops_assets.adapters.engine import on_days_sql, open_engine, put, quote, run
from mlops_assets.errors import DeclarationError
from mlops_assets.service.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 64
LEAST_KEY_CHARACTERS = 16


def key_name(service: str) -> str:
    """Name of the environment variable with a service's key.

    >>> key_name("card_fraud")
    'MLOPS_HMAC_KEY_CARD_FRAUD'
    """
    return f"MLOPS_HMAC_KEY_{service.upper()}"


def hider(source: Source, service: str) -> "Callable[[pa.Table], pa.Table] | None":
    """What turns the declared id columns of some rows into pseudonyms before they are written; None: there are none."""
    if not source.pseudonymise:
        return None

    def hide(table: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        with open_engine() as con:
            put(con, "hidden", table.append_column("place", pa.array(range(table.num_rows), pa.int64())))
            pseudonymise(con, source, service=service, arrived="hidden")
            hidden = con.sql(in_place_sql("hidden", source.columns)).to_arrow_table()
        return hidden.cast(table.schema)

    return hide


def in_place_sql(table: str, columns: Iterable[str]) -> str:
    """SQL of some columns of rows in the order they were given in."""
    return f"select {', '.join(map(quote, columns))} from {quote(table)} order by place"


def pseudonymise(
    con: duckdb.DuckDBPyConnection,
    source: Source,
    *,
    service: str,
    arrived: str,
    hidden: Mapping[date, Collection[str]] = MappingProxyType({}),
) -> None:
    """Replace the declared id columns of ``arrived`` by their pseudonyms, 64 hex characters; null stays null.

    ``hidden``: day -> columns that its file has as pseudonyms already, because it was written here.

    Raises:
        DeclarationError: columns are declared and the key is missing or short; never names the key.
    """
    if not source.pseudonymise:
        return
    name = key_name(service)
    key = os.environ.get(name, "")
    if len(key) < LEAST_KEY_CHARACTERS:
        raise DeclarationError(
            f"source '{source.name}' > pseudonymise",
            f"{', '.join(source.pseudonymise)} must be stored as keyed hashes, and the environment variable {name} "
            f"{'is too short' if key else 'is not set'}.",
            f"Set it to a secret of at least {LEAST_KEY_CHARACTERS} characters, the same for ever.",
        )
    padded = (hashlib.sha256(key.encode()).digest() if len(key.encode()) > BLOCK_BYTES else key.encode()).ljust(
        BLOCK_BYTES, b"\0"
    )
    inner, outer = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
    run(con, pads_sql(), [inner, outer])  # parameters, so that no statement and no error message carries the key
    already = {name: [day for day, names in hidden.items() if name in names] for name in source.pseudonymise}
    run(con, pseudonymise_sql(arrived, already))
    run(con, forget_pads_sql())


def pads_sql() -> str:
    """SQL that keeps the two padded keys for one statement."""
    return "create or replace temp table hmac_pads as select ?::blob as inner_pad, ?::blob as outer_pad"


def forget_pads_sql() -> str:
    """SQL that forgets them."""
    return "drop table hmac_pads"


def pseudonymise_sql(table: str, columns: Mapping[str, Collection[date]]) -> str:
    """SQL that replaces columns by HMAC(key, value) = H(outer || H(inner || value)), in hex.

    ``columns``: name -> days of ``table`` on which it is one already.
    """
    hashed = {name: f"sha256(outer_pad || unhex(sha256(inner_pad || encode({quote(name)}))))" for name in columns}
    changes = ", ".join(
        f"case when {on_days_sql(days)} then {quote(name)} else {hashed[name]} end as {quote(name)}"
        if days
        else f"{hashed[name]} as {quote(name)}"
        for name, days in columns.items()
    )
    return f"""
        create or replace temp table {quote(table)} as
        select * exclude (inner_pad, outer_pad) replace ({changes}) from {quote(table)}, hmac_pads
    """
