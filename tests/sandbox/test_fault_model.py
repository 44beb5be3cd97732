"""The fault model: valid values, the order of faults, and how often each of them hits."""

import math
from typing import Any

import pytest

from octogen_dagster.sandbox.fault_model import ActiveFaults, Hits
from octogen_dagster.sandbox.faults import Fault

SLOW, STORM, CUT = Fault("latency", 1), Fault("status", 503, times=2), Fault("cut", times=1)


def hit(faults: ActiveFaults[Fault]) -> tuple[Fault, ...]:
    """The faults that hit a request that every fault selects."""
    return faults.hit(lambda fault: True).faults


def test_faults_take_effect_one_after_the_other_with_latency_added() -> None:
    faults = ActiveFaults([SLOW, STORM, CUT])
    hits = [hit(faults) for _ in range(4)]
    assert hits == [(SLOW, STORM), (SLOW, STORM), (SLOW, CUT), (SLOW,)]


def test_only_selected_requests_are_counted() -> None:
    faults = ActiveFaults([CUT])
    assert faults.hit(lambda fault: False).faults == ()
    assert hit(faults) == (CUT,)
    assert hit(faults) == ()


def test_an_injected_fault_comes_after_those_in_force() -> None:
    faults = ActiveFaults([STORM])
    faults.inject(CUT)
    assert [hit(faults) for _ in range(3)] == [(STORM,), (STORM,), (CUT,)]


def test_cleared_faults_hit_nothing() -> None:
    faults = ActiveFaults([SLOW, STORM])
    faults.clear()
    assert hit(faults) == ()


def test_hits_add_up_latency_and_name_the_fault_that_decides_the_response() -> None:
    hits = Hits((Fault("latency", 0.5), STORM, Fault("latency", 2)))
    assert hits.latency_seconds == 2.5
    assert hits.exclusive is STORM
    nothing: Hits[Fault] = Hits(())
    assert (nothing.latency_seconds, nothing.exclusive) == (0, None)


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("latency", math.nan, "latency needs seconds, 0 or more, such as 0.2, not nan"),
        ("latency", "1", "latency needs seconds, 0 or more, such as 0.2, not '1'"),
        ("status", 399, "status needs a number from 400 to 599, not 399"),
        ("cut", 1, "cut takes no value: leave out 1"),
    ],
)
def test_a_value_that_does_not_fit_the_kind_is_refused(kind: Any, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Fault(kind, value)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    unknown: Any = "flood"
    with pytest.raises(ValueError, match="unknown fault 'flood': use one of latency, status"):
        Fault(unknown)


def test_a_fault_hits_one_request_or_more() -> None:
    with pytest.raises(ValueError, match="times must be 1 or more, not 0"):
        Fault("cut", times=0)
