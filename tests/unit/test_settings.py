"""What a user sets: mistyped names, fractions."""

from __future__ import annotations

import pytest

from octogen_dagster.settings import did_you_mean, require_fraction


def test_only_a_similar_name_is_meant() -> None:
    assert did_you_mean("north-peak", ["northpeak", "strada"]) == " Did you mean 'northpeak'?"
    assert did_you_mean("farfetch", ["northpeak", "strada"]) == ""
    assert did_you_mean("strada", ["strada"]) == ""


@pytest.mark.parametrize("value", [-0.01, 5, float("nan"), float("inf")])
def test_what_is_no_fraction_is_refused_by_name(value: float) -> None:
    for fraction in (0, 0.05, 1):
        require_fraction("reserve", fraction)
    with pytest.raises(ValueError, match=rf"reserve must be a share from 0 to 1.*not {value}"):
        require_fraction("reserve", value)
