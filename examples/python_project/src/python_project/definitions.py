"""The code location, which loads all modules in the folder `defs`."""

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Load all modules in the folder `defs`."""
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
