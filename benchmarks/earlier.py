"""A checkout of an earlier commit, to be measured in the same rounds."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import ROOT


@contextmanager
def checkout(revision: str | None) -> Iterator[Path | None]:
    """Yield a folder with the package and the contenders of a commit; None without a commit.

    Args:
        revision: The commit, as git names it.

    Raises:
        subprocess.CalledProcessError: git does not know the commit.
    """
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        archive = subprocess.run(
            ["git", "archive", revision, "octogen_dagster", "benchmarks/contenders"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        subprocess.run(["tar", "-x", "-C", name], input=archive.stdout, check=True)
        folder = Path(name)
        # Here `benchmarks` must remain that of this commit.
        (folder / "benchmarks" / "contenders").rename(folder / "contenders")
        (folder / "benchmarks").rmdir()
        yield folder
