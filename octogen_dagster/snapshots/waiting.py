"""The snapshots that wait for a history: what was replaced since the history ran last.

    products.parquet
    .products.waiting/products_history/reader    a marker, which a run of the history leaves
    .products.waiting/products_history/<id>      a snapshot that was replaced since

A publication keeps the snapshot that it replaces once for each reader. The next run of the history
puts in all that wait, and removes them when it is reported. A run that dies in between leaves some
that the history has, which the next one knows by their run.
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
"""The most snapshots that wait for a history whose runs fail."""
_MAX_USUAL = 7
"""The most snapshots that wait for a history whose runs were missed now and then."""
_FOLDER = ".waiting"
_READER = "reader"


class Reader(NamedTuple):
    """A history that the snapshots of a file are kept for when they are replaced.

    Attributes:
        history: The path of its asset.
        folder: The folder of the snapshots that wait for it.
        waiting: The keys of these snapshots, the oldest first.
    """

    history: str
    folder: str
    waiting: list[str]


def readers_of(files: Iterable[ListedFile]) -> list[Reader]:
    """Return the histories for which there is a folder in a listing of files."""
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
    """Return the readers for which snapshots wait that nobody reads, by the path of the history.

    The history has no file in the store, or a week of snapshots waits for it.
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
    """Keep a snapshot, with this metadata of its file, for each history that reads it."""
    name = metadata.get(SNAPSHOT_ID) or uuid.uuid4().hex
    for reader in readers_of(store.files(beside(key, _FOLDER))):
        kept = f"{reader.folder}/{name}"
        store.copy(key, kept)
        waiting = [each for each in reader.waiting if each != kept]
        if too_many := waiting[: max(0, len(waiting) + 1 - MAX_WAITING)]:
            store.delete(too_many)
            warn(
                f"More than {MAX_WAITING} snapshots wait for the history {reader.history}, so the "
                "oldest was removed. Materialize the history, or if it no longer exists, delete "
                f"{store.uri(reader.folder)}."
            )


def wait_for(store: Store, key: str, history: str) -> Callable[[], list[str]]:
    """Have snapshots kept for a history from now on; return what lists those that wait for it."""
    folder = f"{beside(key, _FOLDER)}/{asset_path(history)}"
    store.put(f"{folder}/{_READER}", b"")

    def waiting() -> list[str]:
        readers = readers_of(store.files(folder))
        # The folder of a history `a/b` is in that of a history `a`.
        return next((each.waiting for each in readers if each.folder == folder), [])

    return waiting
