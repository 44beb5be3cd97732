"""fakesnow as a server: `python fakesnow_server.py PORT`, with the Python of its environment.

It takes what Snowflake's ADBC driver sends, but not as Snowflake takes it in some ways that matter
here: they are mended below.
"""

import dataclasses
import logging
import sys
import threading
import time
from typing import Any

import duckdb
import fakesnow.copy_into
import uvicorn
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.server import app

describe_table = fakesnow.copy_into._describe_table
read_parameters = fakesnow.copy_into._params
execute_statement = FakeSnowflakeCursor.execute
IDLE_SECONDS = 3.0
"""After how long without a statement a transaction is rolled back that others wait for."""


def parameters(expression: Any, *arguments: Any, **named: Any) -> Any:
    """COPY INTO takes the format of the stage, which is Parquet; fakesnow takes CSV."""
    found = read_parameters(expression, *arguments, **named)
    names = {parameter.this.name.upper() for parameter in expression.args.get("params", [])}
    if "FILE_FORMAT" in names:
        return found
    return dataclasses.replace(found, file_format=fakesnow.copy_into.ReadParquet())


def described(table: Any, connection: Any, *arguments: Any) -> list[tuple[str, str]]:
    """COPY INTO may name a temporary table."""
    try:
        found: list[tuple[str, str]] = describe_table(table, connection, *arguments)
    except duckdb.CatalogException:
        rows = connection.execute(f'DESCRIBE temp.main."{table.name}"').fetchall()
        found = [(row[0], row[1]) for row in rows]
    return found


class Transactions:
    """One transaction after the other, as they lock what they update first.

    In DuckDB they would conflict. That of a client that is gone is rolled back; Snowflake does so
    after five minutes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: Any = None
        self._seen = 0.0

    def begin(self, session: Any) -> None:
        with self._changed:
            while self._owner not in (None, session):
                idle = time.monotonic() - self._seen
                if idle > IDLE_SECONDS:
                    with statements:
                        self._owner._duck_conn.rollback()
                        self._owner._in_transaction = False
                    break
                self._changed.wait(IDLE_SECONDS - idle)
            self._owner = session

    def seen(self, session: Any) -> None:
        if self._owner is session:
            self._seen = time.monotonic()

    def end(self, session: Any) -> None:
        with self._changed:
            if self._owner is session:
                self._owner = None
                self._changed.notify_all()


transactions = Transactions()
statements = threading.RLock()
"""A session takes several statements at once, as the driver sends them; DuckDB's does not."""


def execute(cursor: Any, command: str, *arguments: Any, **named: Any) -> Any:
    session = cursor._conn
    # A temporary stage belongs to its session; in fakesnow all of a name are one folder.
    command = command.replace("ADBC$BIND", f"ADBC$BIND_{id(session)}")
    word = command.split(maxsplit=1)[0].upper()
    if word == "BEGIN":
        transactions.begin(session)
    transactions.seen(session)
    try:
        with statements:
            return execute_statement(cursor, command, *arguments, **named)
    finally:
        transactions.seen(session)
        if word in ("COMMIT", "ROLLBACK"):
            transactions.end(session)


def alone(work: Any) -> Any:
    def locked(*arguments: Any, **named: Any) -> Any:
        with statements:
            return work(*arguments, **named)

    return locked


fakesnow.copy_into._params = parameters
fakesnow.copy_into._describe_table = described
FakeSnowflakeCursor.execute = execute
for name in ("_describe_last_sql", "_describe_only"):
    setattr(FakeSnowflakeCursor, name, alone(getattr(FakeSnowflakeCursor, name)))

if __name__ == "__main__":
    logging.disable(logging.INFO)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
