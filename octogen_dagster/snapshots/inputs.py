"""The types as which snapshots are loaded, named by the annotations of inputs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import polars as pl

from octogen_dagster.errors import MissingPackageError, OctogenSnapshotError

if TYPE_CHECKING:
    from octogen_dagster.store import Store

_LOADED = (
    "pl.LazyFrame, pl.DataFrame, pd.DataFrame, pyarrow.Table, pathlib.Path, dict[str, ...] of one "
    "of these for several partitions, or SnapshotPair"
)


class InputType:
    """The type as which an input is loaded.

    Args:
        asset: The asset that is loaded; begins the messages of errors.
        annotation: The annotation of the input; `typing.Any` without one.
        partitioned: True if the asset has partitions.

    Raises:
        TypeError: Snapshots are not loaded as this type.
        MissingPackageError: A package that the type needs is not installed.
    """

    def __init__(self, asset: str, annotation: Any, *, partitioned: bool) -> None:
        self._asset = asset
        self.is_dict = get_origin(annotation) in (dict, Mapping)
        key, self._type = get_args(annotation) if self.is_dict else (str, annotation)
        self._is_pandas = _is(self._type, "pandas", "DataFrame")
        self._is_arrow = _is(self._type, "pyarrow", "Table")
        is_polars = self._type in (Any, pl.DataFrame, pl.LazyFrame)
        is_loaded = is_polars or self._is_pandas or self._is_arrow or self._type is Path
        if key is not str or not is_loaded:
            name = str(annotation).removeprefix("<class '").removesuffix("'>")
            raise TypeError(
                f"{asset} cannot be loaded as {name}. Annotate the input with {_LOADED}."
            )
        if self.is_dict and not partitioned:
            raise TypeError(
                f"{asset} has no partitions, so it cannot be loaded as a dict of them. Annotate "
                "the input with the type of the dict's values."
            )
        if self._is_pandas:
            try:
                importlib.import_module("pyarrow")
            except ImportError as error:
                raise MissingPackageError(
                    f"{asset} cannot be loaded as a pandas.DataFrame without pyarrow: pip install "
                    "pyarrow"
                ) from error

    def load(self, store: Store, key: str, *, pinned: bool = True) -> Any:
        """Return a snapshot as the type, or as the type of each entry of the dict.

        Args:
            store: Where the snapshot is.
            key: The key of the snapshot, which exists.
            pinned: As for `Store.scan`.

        Raises:
            OctogenSnapshotError: The snapshot is damaged, or in a bucket where a path is wanted.
        """
        if self._type is not Path:
            return self.convert(store.scan(key, pinned=pinned))
        if not store.is_local:
            raise OctogenSnapshotError(
                f"{self._asset} cannot be loaded as a pathlib.Path: {store.uri(key)} is not on a "
                "disk. Annotate the input with a frame, such as pl.LazyFrame."
            )
        return Path(store.uri(key))

    def convert(self, frame: pl.LazyFrame) -> Any:
        """Return a frame of several partitions as the type.

        Raises:
            TypeError: The type is a path.
        """
        if self._type is Path:
            raise TypeError(
                f"{self._asset} has several partitions, which are not one file. Annotate the input "
                "with dict[str, pathlib.Path]."
            )
        if self._type is pl.LazyFrame:
            return frame
        collected = frame.collect()
        if self._is_pandas:
            return collected.to_pandas()
        return collected.to_arrow() if self._is_arrow else collected


def _is(wanted: Any, module: str, name: str) -> bool:
    """True for a type of a package that need not be installed."""
    return module in sys.modules and wanted is getattr(sys.modules[module], name, None)
