"""SELECT queries on views, in the part of BigQuery's dialect that SQLite supports, too.

`COUNTIF` and `CAST(... AS TIMESTAMP)` also work. Nested and repeated columns can only be selected.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from octogen_dagster.sandbox.exports import Field, View

_VIEW = re.compile(r"`([^`]+\.[^`.]+\.[^`.]+)`")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_READING = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)


@dataclass(frozen=True)
class Result:
    """A result: columns, rows (in BigQuery's REST format), and the number of rows read."""

    fields: Sequence[Field]
    rows: Sequence[dict[str, Any]]
    rows_read: int


def select(sql: str, find_view: Callable[[str, str, str], View]) -> Result:
    """Execute a SELECT statement.

    `find_view` is called with the project, dataset and name of each view.
    """
    known: dict[str, Field] = {}
    rows_read = 0
    with closing(sqlite3.connect(":memory:")) as database:
        for name in dict.fromkeys(_VIEW.findall(sql)):
            view = find_view(*name.rsplit(".", 2))
            names = [each["name"] for each in view.fields]
            # SQLite stores values unchanged if the type's name contains BLOB.
            known |= {f"BLOB {each['name']}": each for each in view.fields}
            rows = [[_stored(row[name]) for name in names] for row in view.rows]
            columns = ", ".join(f'{each} "BLOB {each}"' for each in names)
            database.execute(f"CREATE TABLE `{name}` ({columns})")
            places = ", ".join("?" * len(names))
            database.executemany(f"INSERT INTO `{name}` VALUES ({places})", rows)  # noqa: S608
            rows_read += len(rows)
        database.create_aggregate("COUNTIF", 1, _CountIf)
        database.set_authorizer(
            # Otherwise a statement could change the tables or attach a local file.
            lambda action, *_: sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
        )
        statement = re.sub(r"(?i)\bAS TIMESTAMP\)", "AS TEXT)", sql)
        try:
            cursor = database.execute(statement)
            found = cursor.fetchall()
            # A view's column has the type of the underlying table column.
            database.set_authorizer(lambda *_: sqlite3.SQLITE_OK)
            database.execute(f"CREATE TEMP VIEW result AS {statement}")
        except sqlite3.Error as error:
            raise ValueError(f"the sandbox runs only SELECTs SQLite supports: {error}") from None
        types = [each[2] for each in database.execute("PRAGMA table_info(result)")]
    values = list(zip(*found, strict=True)) or [()] * len(types)
    fields = [
        {**(known.get(kind) or _inferred(column)), "name": name}
        for (name, *_), kind, column in zip(cursor.description, types, values, strict=True)
    ]
    sent = [
        {"f": [{"v": _sent(value, of)} for value, of in zip(row, fields, strict=True)]}
        for row in found
    ]
    return Result(fields, sent, rows_read)


class _CountIf:
    def __init__(self) -> None:
        self._count = 0

    def step(self, condition: int | None) -> None:
        self._count += bool(condition)

    def finalize(self) -> int:
        return self._count


def _inferred(column: Sequence[Any]) -> Field:
    first = next((value for value in column if value is not None), None)
    if isinstance(first, str):
        kind = "TIMESTAMP" if _TIMESTAMP.fullmatch(first) else "STRING"
    else:
        kind = "FLOAT" if isinstance(first, float) else "INTEGER"
    return {"type": kind, "mode": "NULLABLE"}


def _stored(value: Any) -> Any:
    """Convert a value to SQLite."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return json.dumps(value) if isinstance(value, list | dict) else value


def _sent(value: Any, field: Field) -> Any:
    """Convert a value from SQLite to BigQuery's REST format."""
    if value is None:
        return None
    is_repeated, kind = field["mode"] == "REPEATED", field["type"]
    if isinstance(value, str) and (is_repeated or kind == "RECORD"):
        value = json.loads(value)
    if is_repeated:
        return [{"v": _sent(each, {**field, "mode": "NULLABLE"})} for each in value]
    if kind == "RECORD":
        return {"f": [{"v": _sent(value[each["name"]], each)} for each in field["fields"]]}
    if kind == "TIMESTAMP":
        moment = datetime.fromisoformat(value)
        return str(int(moment.timestamp()) * 1_000_000 + moment.microsecond)
    return str(bool(value)).lower() if kind == "BOOLEAN" else str(value)
