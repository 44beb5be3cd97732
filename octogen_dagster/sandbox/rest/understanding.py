"""Query understanding: the filters that are derived from the words of a search.

Words for a gender, an age group, a brand, a color or an attribute become filters and are left out
of the text. Words for a type of product become filters and stay in the text. `under 50` and
`over 50` become price bounds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from octogen_dagster.sandbox.data.brands import BRANDS
from octogen_dagster.sandbox.data.text import word_list
from octogen_dagster.sandbox.data.verticals import KINDS
from octogen_dagster.sandbox.data.vocabulary import COLORS
from octogen_dagster.sandbox.rest.effective_query import (
    EffectiveFacet,
    EffectiveQuery,
    Relaxation,
    sent_facets,
)
from octogen_dagster.sandbox.rest.facets import bare_name
from octogen_dagster.sandbox.rest.request_bodies import (
    CurrentSearchRequest,
    Filters,
    UnderstoodFilters,
)

Meaning = Mapping[str, Sequence[str]]
"""Facets with their values, by name."""

_Phrase = tuple[str, ...]

_PRICE_BOUND = re.compile(r"\b(under|below|over|above)\s+\$?(\d+(?:\.\d+)?)", re.IGNORECASE)
_FILLERS = frozenset(("a", "an", "and", "for", "in", "of", "s", "the", "with"))
_COLOR_AXES = frozenset(("color", "color_family"))
_GENDER_WORDS = {
    "female": ("women", "womens", "woman", "ladies", "female"),
    "male": ("men", "mens", "man", "male"),
    "unisex": ("unisex",),
}
_AGE_WORDS = {
    "kids": ("kids", "children", "child"),
    "toddler": ("toddler", "toddlers"),
    "infant": ("infant", "baby", "babies"),
    "adult": ("adult", "adults"),
}


class Understanding:
    """Derives filters from words.

    Instances are safe to use from several threads: a change replaces the whole vocabulary.
    """

    def __init__(self) -> None:
        self._meanings: dict[_Phrase, Meaning] = _VOCABULARY

    def replace_meaning(self, phrase: str, facets: Meaning) -> None:
        """Understand `phrase` as `facets` from now on; as plain text if there are none.

        The phrase stays text if one of the facets is `product_type`.

        Raises:
            ValueError: The phrase has no words.
        """
        words = tuple(word_list(phrase))
        if not words:
            raise ValueError(f"the phrase to understand needs at least one word, not {phrase!r}")
        self._meanings = {**self._meanings, words: dict(facets)}

    def effective_query(self, request: Filters) -> EffectiveQuery:
        """Return what a request searches for."""
        query = EffectiveQuery(
            text=request.keywords,
            catalogs=request.catalog_keys,
            facets=sent_facets(request.caller_facets),
            price_min=request.price_min,
            price_max=request.price_max,
        )
        if not isinstance(request, UnderstoodFilters):
            return query
        query = query.model_copy(
            update={
                "exclude_facets": sent_facets(request.exclude_facets or ()),
                "brand_quality_min": request.brand_quality_min,
                "brand_quality_max": request.brand_quality_max,
            }
        )
        if isinstance(request, CurrentSearchRequest):
            query = query.model_copy(
                update={
                    "similar_to_brands": request.similar_to_brands,
                    "relaxation": Relaxation() if request.relax else None,
                }
            )
        return self._understood(query, request) if request.is_understood else query

    def _understood(self, query: EffectiveQuery, request: UnderstoodFilters) -> EffectiveQuery:
        price_min, price_max, rest = _price_bounds(query.text)
        text, meaning = self._meaning_of(word_list(rest))
        _add_category(meaning, request)
        dropped = {bare_name(name) for name in request.omit_generated_facets or ()}
        sent = {bare_name(facet.name) for facet in query.facets}
        if sent & _COLOR_AXES:
            dropped |= _COLOR_AXES
        generated = [
            EffectiveFacet(name=name, values=list(values), source="generated")
            for name, values in meaning.items()
            if bare_name(name) not in dropped | sent
        ]
        return query.model_copy(
            update={
                "text": text,
                "understood": True,
                "facets": [*query.facets, *generated],
                "price_min": max(_bounds(query.price_min, price_min), default=None),
                "price_max": min(_bounds(query.price_max, price_max), default=None),
            }
        )

    def _meaning_of(self, words: list[str]) -> tuple[str, dict[str, list[str]]]:
        """Return the words that stay text, and the facets of all words."""
        meanings = self._meanings
        longest = max(map(len, meanings))
        text: list[str] = []
        facets: dict[str, list[str]] = {}
        at = 0
        while at < len(words):
            phrases = (tuple(words[at : at + size]) for size in range(longest, 0, -1))
            phrase = next((phrase for phrase in phrases if meanings.get(phrase)), None)
            if phrase is None:
                text.append(words[at])
                at += 1
                continue
            at += len(phrase)
            if "product_type" in meanings[phrase]:
                text += phrase
            for name, values in meanings[phrase].items():
                known = facets.setdefault(name, [])
                known += [value for value in values if value not in known]
        text = [word for word in text if word not in _FILLERS]
        _add_product_types(facets, [word for word in text if (word,) not in meanings])
        return " ".join(text), facets


def iter_relaxed(query: EffectiveQuery) -> Iterator[EffectiveQuery]:
    """Return the query with more and more of its generated facets dropped, stage by stage."""
    dropped: list[EffectiveFacet] = []
    facets, rounds = query.facets, 0
    for is_dropped in (_is_brand, _is_attribute, _is_color_or_category):
        stage = [f for f in facets if f.source == "generated" and is_dropped(f.name)]
        if not stage:
            continue
        rounds += 1
        dropped = [*dropped, *stage]
        facets = [facet for facet in facets if facet not in stage]
        relaxation = Relaxation(rounds=rounds, declined_rounds=rounds - 1, dropped_facets=dropped)
        yield query.model_copy(update={"facets": facets, "relaxation": relaxation})


def _is_brand(name: str) -> bool:
    return name.startswith("brand_")


def _is_color_or_category(name: str) -> bool:
    return name in _COLOR_AXES or name == "product_type" or name.startswith("category_path.")


def _is_attribute(name: str) -> bool:
    return not _is_brand(name) and not _is_color_or_category(name)


def _price_bounds(text: str) -> tuple[float | None, float | None, str]:
    price_min = price_max = None
    for word, amount in _PRICE_BOUND.findall(text):
        if word.lower() in ("under", "below"):
            price_max = float(amount)
        else:
            price_min = float(amount)
    return price_min, price_max, _PRICE_BOUND.sub(" ", text)


def _bounds(*bounds: float | None) -> list[float]:
    return [bound for bound in bounds if bound is not None]


def _add_product_types(facets: dict[str, list[str]], words: list[str]) -> None:
    """Add the types of product that have all of those words that any type has."""
    known = [word for word in words if any(word in nouns for nouns in _NOUN_WORDS.values())]
    if not known or "product_type" in facets:
        return
    kinds = [kind for kind in KINDS if all(word in _NOUN_WORDS[kind.noun] for word in known)]
    if kinds:
        facets["product_type"] = [kind.noun.lower() for kind in kinds]
        roots = {kind.category_path[0].lower() for kind in kinds}
        if len(roots) == 1:
            facets["category_path.depth_0"] = [*roots]


def _add_category(facets: dict[str, list[str]], request: UnderstoodFilters) -> None:
    sent = (facet.name for facet in request.caller_facets)
    if "category_path.depth_0" in facets or any(n.startswith("category_path.") for n in sent):
        return
    for depth, name in enumerate(request.fallback_category or ()):
        facets[f"category_path.depth_{depth}"] = [name]


def _vocabulary() -> dict[_Phrase, Meaning]:
    """Return the meaning of each phrase. The first meaning of a phrase counts."""
    entries: list[tuple[str, str, str]] = []
    entries += [("gender", g, word) for g, words in _GENDER_WORDS.items() for word in words]
    entries += [("age_groups", age, word) for age, words in _AGE_WORDS.items() for word in words]
    entries += [
        ("brand_name", brand.name.lower(), name)
        for brand in BRANDS
        for name in (brand.name, *brand.spellings)
    ]
    entries += [("color_family", color.family.lower(), color.family) for color in COLORS]
    entries += [
        ("color", color.name, name) for color in COLORS for name in (color.name, color.label)
    ]
    entries += [
        (attribute, value.lower(), value)
        for kind in KINDS
        for attribute, values in kind.attributes.items()
        for value in values
    ]
    meanings: dict[_Phrase, Meaning] = {}
    for facet, value, phrase in entries:
        words = tuple(word_list(phrase))
        if words:
            meanings.setdefault(words, {facet: [value]})
    return meanings


_NOUN_WORDS = {kind.noun: frozenset(word_list(kind.noun)) for kind in KINDS}
_VOCABULARY = _vocabulary()
