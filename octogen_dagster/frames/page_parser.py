"""PageParser: decodes the JSON of pages, and learns the fields that the schema does not know."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from octogen_dagster.frames.page_types import ITEMS, PAGE, Learned, PageTypes, learned_name
from octogen_dagster.frames.unknown_fields import UnknownFields, count_unknown_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LEARNED = 256
_UNKNOWN_FIELD = "Object contains unknown field"
_NOT_LEARNABLE = frozenset('"\\') | {chr(code) for code in range(32)}  # msgspec's own rule


class PageParser:
    """Decodes pages to msgspec structs and counts their unknown fields.

    A service adds fields without notice. Decoding such a page to a type that skips them would not
    count them, and looking for them costs as much as decoding. So a field that is met once becomes
    a member of the type, with a value that is not decoded, and is counted where it is present.

    Args:
        strict: False for the lax types of `page_types`.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._types = PageTypes({}, strict=strict)
        self._open_types = PageTypes({}, strict=strict, known_only=False)
        self._lock = threading.Lock()

    def parse(self, content: bytes) -> tuple[Any, Counter[str]]:
        """Decode a page, and count its unknown fields.

        Returns:
            The page without the unknown fields, and how often each of them occurs, by path:
            `items.brand.founder`.

        Raises:
            msgspec.MsgspecError: The content is not JSON or has another type.
            UnicodeDecodeError: The content is not UTF-8.
            RecursionError: It is nested too deeply.
        """
        types = self._types
        try:
            page = types.decoder.decode(content)
        except msgspec.ValidationError as error:
            if not str(error).startswith(_UNKNOWN_FIELD):
                raise
            return self._learn_from(content)
        unknown = _remove_learned(page, types.learned)
        if unknown:
            content.decode()  # msgspec skips bytes that are not UTF-8
        return page, _by_path(unknown)

    def _learn_from(self, content: bytes) -> tuple[Any, Counter[str]]:
        content.decode()
        unknown = count_unknown_fields(content)
        self._learn(unknown)
        return self._open_types.decoder.decode(content), _by_path(unknown)

    def _learn(self, unknown: Iterable[tuple[str, str]]) -> None:
        with self._lock:
            learned: Learned = {path: [*names] for path, names in self._types.learned.items()}
            room = MAX_LEARNED - sum(map(len, learned.values()))
            new = [
                (path, name)
                for path, name in sorted(unknown)
                if name not in learned.get(path, ()) and _NOT_LEARNABLE.isdisjoint(name)
            ]
            for path, name in new[:room]:
                learned.setdefault(path, []).append(name)
            if new[:room]:
                self._types = PageTypes(learned, strict=self._strict)


def _remove_learned(page: Any, learned: Learned) -> UnknownFields:
    """Unset the learned fields of a page, and count those that were present."""
    found: UnknownFields = Counter()
    for path, names in learned.items():
        objects = _objects_at(page, path)
        for place, name in enumerate(names):
            attribute = learned_name(place)
            for each in objects:
                if getattr(each, attribute) is not msgspec.UNSET:
                    setattr(each, attribute, msgspec.UNSET)
                    found[path, name] += 1
    return found


def _by_path(unknown: UnknownFields) -> Counter[str]:
    return Counter(
        {f"{path}.{name}" if path else name: unknown[path, name] for path, name in unknown}
    )


def _objects_at(page: Any, path: str) -> list[Any]:
    """Return the objects of a page at a path: the page, its products, or objects in these."""
    if path == PAGE:
        return [page]
    items: list[Any] = page.items or []
    if path == ITEMS:
        return items
    name = path.removeprefix(f"{ITEMS}.")
    values = [value for item in items if (value := getattr(item, name))]
    flat = [each for value in values for each in (value if type(value) is list else (value,))]
    return [each for each in flat if isinstance(each, msgspec.Struct)]
