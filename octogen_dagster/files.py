"""sync: what was written also survives a power failure."""

import os


def sync(path: str) -> None:
    """Have a file's content, or a folder's list of names, written to the disk.

    Args:
        path: The file or folder, on a local file system.

    Raises:
        OSError: It cannot be.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
