"""Packages that pin the Dagster of their own release: `.ci/matrix alone` is without them."""

from importlib.util import find_spec

import pytest


def needs(module: str) -> pytest.MarkDecorator:
    """Skip a test without a module; the gate has all of them, and fails if a test is skipped."""
    return pytest.mark.skipif(not find_spec(module), reason=f"needs {module}")
