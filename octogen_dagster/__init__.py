"""The names that a definitions file or a notebook uses.

`__init__.pyi` lists them. Each is imported when it is first used, so that a command starts without
Dagster and Polars.

Every error is in `octogen_dagster.errors`, and the models of Octogen's responses are in
`octogen_dagster.api.models`.
"""

import importlib.metadata

import lazy_loader

__version__ = importlib.metadata.version("octogen-dagster")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
