"""The check of a setting that is a share."""

from __future__ import annotations

import pytest

from octogen_dagster.frames.shares import require_share


@pytest.mark.parametrize("value", [0, 0.05, 1])
def test_a_share_is_accepted(value: float) -> None:
    require_share("reserve", value)


@pytest.mark.parametrize("value", [-0.01, 5, float("nan"), float("inf")])
def test_what_is_no_share_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match=rf"reserve must be a share from 0 to 1.*not {value}"):
        require_share("reserve", value)
