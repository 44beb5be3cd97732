"""PageStorage: the files of saved pages, on a disk or in a bucket."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from concurrent.futures import Future

    from upath import UPath

_MAX_FILES_AT_ONCE = 8
_MAX_CREATE_ATTEMPTS = 20


class RemovedError(OctogenSnapshotError):
    """A file, or the folder that it belongs in, was removed by another run."""


class PageStorage:
    """Reads and writes files below one folder by their relative names.

    Args:
        folder: A folder, or a prefix in a bucket; it is made when the first file is written.

    Attributes:
        folder: As in the arguments.
        is_local: True for a folder on a disk.
    """

    def __init__(self, folder: UPath) -> None:
        self.folder = folder
        self.is_local = folder.protocol in ("", "file", "local")
        self._threads = ThreadPoolExecutor(_MAX_FILES_AT_ONCE, thread_name_prefix="octogen-save")

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run a function in one of the threads that work on files."""
        return self._threads.submit(work)

    def names(self) -> set[str]:
        """The relative names of all files: "folder/read.json".

        Raises:
            OctogenSnapshotError: The folder cannot be read.
        """
        with self._explained("read from"):
            return self._local_names() if self.is_local else self._bucket_names()

    def _local_names(self) -> set[str]:
        names: set[str] = set()
        try:
            entries = list(os.scandir(self.folder.path))
        except (FileNotFoundError, NotADirectoryError):
            return names
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                names.add(entry.name)
                continue
            with contextlib.suppress(FileNotFoundError):  # another run removed it meanwhile
                names.update(
                    f"{entry.name}/{file.name}"
                    for file in os.scandir(entry.path)
                    if not file.is_dir(follow_symlinks=False)
                )
        return names

    def _bucket_names(self) -> set[str]:
        fs, root = self.folder.fs, self.folder.path
        fs.invalidate_cache(root)
        prefix = f"{fs._strip_protocol(root)}/"
        try:
            paths = fs.find(root)
        except FileNotFoundError:  # the bucket does not exist
            return set()
        return {path.removeprefix(prefix) for path in paths if path.startswith(prefix)}

    def read(self, name: str) -> bytes:
        """Read the content of a file.

        Raises:
            RemovedError: The file is not there.
            OctogenSnapshotError: The file cannot be read.
        """
        path = self.folder / name
        try:
            content: bytes = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise RemovedError(
                f"The saved pages {path} are gone: perhaps another run of the same partition "
                "removed them. Run it again."
            ) from None
        except Exception as error:  # an object store's errors are of many kinds
            raise OctogenSnapshotError(
                f"The saved pages {path} cannot be read: {error}. Correct the cause and run it "
                "again."
            ) from error
        return content

    def make_folder(self, name: str) -> None:
        """Make a folder; nothing is done in a bucket, which has none.

        Raises:
            OctogenSnapshotError: The folder cannot be made.
        """
        if self.is_local:
            with self._explained():
                os.makedirs(self._local(name), exist_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all.

        Args:
            name: The relative name; on a disk the folder must exist.
            content: The whole content.

        Raises:
            RemovedError: The folder was removed.
            OctogenSnapshotError: The file cannot be written.
        """
        with self._explained():
            if self.is_local:
                write_whole(self._local(name), content, durable=False)
            else:
                (self.folder / name).write_bytes(content)

    def create(self, name: str, content: bytes) -> None:
        """Write a file and make its folder, again if another run removes either meanwhile.

        Args:
            name: The relative name.
            content: The whole content.

        Raises:
            RemovedError: The folder was removed again and again.
            OctogenSnapshotError: The file cannot be written.
        """
        for _ in range(_MAX_CREATE_ATTEMPTS - 1):
            with contextlib.suppress(RemovedError):
                self._create(name, content)
                return
        self._create(name, content)

    def _create(self, name: str, content: bytes) -> None:
        self.make_folder(str(PurePosixPath(name).parent))
        self.write(name, content)

    def copy(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Give files a second name: a hard link where possible, a server-side copy in a bucket.

        Args:
            pairs: The name of each file, and its second one.

        Raises:
            RemovedError: A file is gone.
            OctogenSnapshotError: A file cannot be copied.
        """
        deque(self._threads.map(lambda pair: self._copy(*pair), pairs), maxlen=0)

    def _copy(self, source: str, target: str) -> None:
        with self._explained():
            if not self.is_local:
                self.folder.fs.cp_file((self.folder / source).path, (self.folder / target).path)
                return
            try:
                os.link(self._local(source), self._local(target))
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links
                shutil.copyfile(self._local(source), self._local(target))

    def remove(self, names: Collection[str], then: Collection[str] = ()) -> None:
        """Remove files, and all folders that are empty then.

        Args:
            names: The files.
            then: Files that are removed after all others.

        Raises:
            OctogenSnapshotError: Some files cannot be removed.
        """
        failures = [
            failure
            for batch in (names, then)
            for failure in self._threads.map(self._remove, batch)
            if failure
        ]
        if self.is_local:
            self._remove_empty_folders()
        if failures:
            raise OctogenSnapshotError(
                f"{len(failures)} files of saved pages in {self.folder} cannot be removed: "
                f"{getattr(failures[0], 'strerror', None) or failures[0]}. Let this user remove "
                "them: a later run may continue from them."
            ) from failures[0]

    def _remove_empty_folders(self) -> None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder.path):
                if entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(OSError):  # it is not empty
                        os.rmdir(entry.path)
            os.rmdir(self.folder.path)

    def _remove(self, name: str) -> Exception | None:
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return None
        except Exception as error:  # an object store's errors are of many kinds
            return error
        return None

    def _local(self, name: str) -> str:
        return os.path.join(self.folder.path, name)

    @contextlib.contextmanager
    def _explained(self, verb: str = "saved to") -> Iterator[None]:
        try:
            yield
        except Exception as error:  # an object store's errors are of many kinds
            if not (self.is_local and isinstance(error, FileNotFoundError)):
                raise OctogenSnapshotError(
                    f"Pages cannot be {verb} {self.folder}: "
                    f"{getattr(error, 'strerror', None) or error}. Make it writable, or set "
                    "base_dir to another place."
                ) from error
            raise RemovedError(
                f"Saved pages in {self.folder} were removed while they were in use, perhaps by "
                "another run of the same partition. Run it again."
            ) from error
