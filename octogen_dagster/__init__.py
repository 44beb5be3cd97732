"""Public names for definitions files and notebooks.

`__init__.pyi` lists these names. Each name is imported when it is first used, so that commands
start without importing Dagster and Polars.

Destinations are in `octogen_dagster.tables`, errors in `octogen_dagster.errors`, the columns of
frames in `octogen_dagster.schemas`, and the models of Octogen's responses in
`octogen_dagster.api.models`. docs/api/ has all modules.
"""

import importlib
import importlib.metadata

import lazy_loader

__version__ = importlib.metadata.version("octogen-dagster")

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_ROOMS = ("octogen_dagster.alerts", "octogen_dagster.tables")
"""The packages that export further public names."""


def __getattr__(name: str) -> object:
    if name in __all__:
        return _attribute(name)
    for room in _ROOMS:
        if not name.startswith("_") and name in dir(importlib.import_module(room)):
            raise AttributeError(f"{name} is in {room}. Use `from {room} import {name}`.")
    from octogen_dagster.validation import did_you_mean

    raise AttributeError(f"octogen_dagster has no name {name!r}.{did_you_mean(name, __all__)}")
