"""What a mistyped name may mean."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence, after a space, that says which name is meant; empty if none is similar.

    Args:
        name: The name that was not found.
        known: Other names.
    """
    similar = difflib.get_close_matches(name, set(known) - {name}, n=1)
    return f" Did you mean {similar[0]!r}?" if similar else ""
