"""The fault model of the sandbox: which requests a fault hits, and how many of them.

`faults` holds the kinds of fault of the REST API and `hub.faults` those of the hub. What happens
to a request that is hit is up to the server that handles it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

FaultT = TypeVar("FaultT", bound="BaseFault")


class ValueRule(NamedTuple):
    """The value that a kind of fault needs.

    Attributes:
        description: Completes the sentence "<kind> needs ...".
        accepts: Returns True for a value that fits.
    """

    description: str
    accepts: Callable[[Any], bool]


def is_number(value: object) -> bool:
    """True for a number that is 0 or more."""
    return isinstance(value, int | float) and value >= 0


SECONDS = ValueRule("seconds, 0 or more, such as 0.2", is_number)
ERROR_STATUS = ValueRule(
    "a number from 400 to 599", lambda value: isinstance(value, int) and 400 <= value <= 599
)


@dataclass(frozen=True)
class BaseFault:
    """A fault of some kind, with the number of requests it hits.

    A subclass lists its kinds and adds selectors.

    Attributes:
        KINDS: All kinds of fault.
        VALUES: The value that a kind needs. Kinds that are not listed take no value.
        COMBINABLE: The kinds that are applied on top of other faults.
        kind: The kind of fault.
        value: The value of the fault.
        times: The number of requests it hits; None for all.

    Raises:
        ValueError: The kind is unknown, or an argument does not fit the kind.
    """

    KINDS: ClassVar[tuple[str, ...]] = ()
    VALUES: ClassVar[Mapping[str, ValueRule]] = {}
    COMBINABLE: ClassVar[frozenset[str]] = frozenset({"latency"})

    kind: str
    value: Any = None
    times: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ValueError(f"unknown fault {self.kind!r}: use one of {', '.join(self.KINDS)}")
        rule = self.VALUES.get(self.kind)
        if rule is None and self.value is not None:
            raise ValueError(f"{self.kind} takes no value: leave out {self.value!r}")
        if rule is not None and not rule.accepts(self.value):
            raise ValueError(f"{self.kind} needs {rule.description}, not {self.value!r}")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be 1 or more, not {self.times}")


@dataclass(frozen=True)
class Hits(Generic[FaultT]):
    """The faults that hit one request: any number of combinable ones and at most one other."""

    faults: tuple[FaultT, ...]

    @property
    def latency_seconds(self) -> float:
        """The total latency, in seconds."""
        return sum(float(fault.value) for fault in self.faults if fault.kind == "latency")

    @property
    def exclusive(self) -> FaultT | None:
        """The fault that is not combinable; None if there is none."""
        return next((fault for fault in self.faults if fault.kind not in fault.COMBINABLE), None)


class ActiveFaults(Generic[FaultT]):
    """The faults in force, each with the number of requests it may still hit.

    Instances are safe to use from several threads.
    """

    def __init__(self, faults: Iterable[FaultT] = ()) -> None:
        self._lock = Lock()
        self._active = [_Active(fault, fault.times) for fault in faults]

    def inject(self, fault: FaultT) -> None:
        """Add a fault, after those in force."""
        with self._lock:
            self._active.append(_Active(fault, fault.times))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._active.clear()

    def hit(self, is_selected: Callable[[FaultT], bool]) -> Hits[FaultT]:
        """Return the faults that hit a request, and count it for each of them.

        The first fault that is not combinable wins; later ones are not counted.

        Args:
            is_selected: Returns True for a fault that selects the request.
        """
        hits: list[FaultT] = []
        is_taken = False
        with self._lock:
            for active in self._active:
                fault = active.fault
                is_combinable = fault.kind in fault.COMBINABLE
                if active.left == 0 or not is_selected(fault) or (is_taken and not is_combinable):
                    continue
                hits.append(fault)
                is_taken = is_taken or not is_combinable
                if active.left is not None:
                    active.left -= 1
        return Hits(tuple(hits))


@dataclass
class _Active(Generic[FaultT]):
    fault: FaultT
    left: int | None
