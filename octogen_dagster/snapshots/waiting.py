"""Keeps replaced snapshots until a history has read them.

    products.parquet
    .products.waiting/products_history/reader    a marker, written by the history's run
    .products.waiting/products_history/<id>      a snapshot that was replaced since then

When a snapshot is replaced, a copy is kept for each history that reads it. The history's next run
reads all these copies and removes them after the run has been reported. If the run dies before
that, the following run recognizes snapshots that the history already contains by their run IDs.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from octogen_dagster.storage.store import SNAPSHOT_ID, asset_path, beside

if TYPE_CHECKING:
    from octogen_dagster.storage.files import ListedFile
    from octogen_dagster.storage.store import Store

MAX_WAITING = 31
"""Maximum number of unread snapshots that are kept for a history."""
_MAX_USUAL = 7
"""Maximum number of unread snapshots for a history that is materialized regularly."""
_FOLDER = ".waiting"
_READER = "reader"


class Reader(NamedTuple):
    """A history and its unread snapshots.

    Attributes:
        history: The history's asset path.
        folder: The folder that contains the unread snapshots.
        waiting: The store keys of the unread snapshots, oldest first.
    """

    history: str
    folder: str
    waiting: list[str]


def readers_of(files: Iterable[ListedFile]) -> list[Reader]:
    """Return the histories whose folders appear in a list of files."""
    readers, waiting = list[Reader](), defaultdict[str, list[str]](list)
    for file in sorted(files, key=lambda each: each.modified):
        folder, _, name = file.key.rpartition("/")
        _, is_waiting, history = folder.partition(f"{_FOLDER}/")
        if not is_waiting:
            continue
        if name == _READER:
            readers.append(Reader(history, folder, waiting[folder]))
        elif not name.startswith("."):  # a marker that is being written
            waiting[folder].append(file.key)
    return readers


def neglected(store: Store) -> dict[str, list[Reader]]:
    """Return the histories that no longer read replaced snapshots, keyed by asset path.

    Such a history has no file in the store, or it has more than seven unread snapshots.
    """
    files = store.files("")
    kept = {file.key.removesuffix(".parquet") for file in files}
    kept |= {key.rpartition("/")[0] for key in kept if not key.rpartition("/")[2].startswith(".")}
    found = defaultdict[str, list[Reader]](list)
    for reader in readers_of(files):
        if len(reader.waiting) > _MAX_USUAL or (reader.waiting and reader.history not in kept):
            found[reader.history].append(reader)
    return found


def keep_for_readers(
    store: Store, key: str, metadata: Mapping[str, str], warn: Callable[[str], None]
) -> None:
    """Keep a copy of a snapshot for each history."""
    name = metadata.get(SNAPSHOT_ID) or uuid.uuid4().hex
    for reader in readers_of(store.files(beside(key, _FOLDER))):
        kept = f"{reader.folder}/{name}"
        store.copy(key, kept)
        waiting = [each for each in reader.waiting if each != kept]
        if too_many := waiting[: max(0, len(waiting) + 1 - MAX_WAITING)]:
            store.delete(too_many)
            warn(
                f"The history {reader.history} has more than {MAX_WAITING} unread snapshots, so "
                "the oldest one was deleted. Materialize the history. If the history no "
                f"longer exists, delete {store.uri(reader.folder)}."
            )


def wait_for(store: Store, key: str, history: str) -> Callable[[], list[str]]:
    """Start keeping replaced snapshots for a history. Return a function that lists the copies."""
    folder = f"{beside(key, _FOLDER)}/{asset_path(history)}"
    store.put(f"{folder}/{_READER}", b"")

    def waiting() -> list[str]:
        readers = readers_of(store.files(folder))
        # The folder for a history `a/b` is inside the folder for a history `a`.
        return next((each.waiting for each in readers if each.folder == folder), [])

    return waiting
