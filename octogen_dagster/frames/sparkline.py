"""Numbers as a line of block characters."""

from collections.abc import Sequence

_LEVELS = "▁▂▃▄▅▆▇█"


def block(share: float) -> str:
    """The character of a share of the height, 0 to 1."""
    return _LEVELS[round(share * (len(_LEVELS) - 1))]


def sparkline(numbers: Sequence[float], lowest: float | None = None) -> str:
    """Draw numbers from the lowest, by default of their own, to the highest; equal ones halfway."""
    low = min(numbers) if lowest is None else lowest
    height = max(numbers) - low
    return "".join(block((number - low) / height if height else 0.5) for number in numbers)
