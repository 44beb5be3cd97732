"""The common words are distinct and valid."""

import re

from octogen_dagster.sandbox.data.vocabulary import COLORS, PRODUCT_LINES, STYLES


def test_words_are_distinct() -> None:
    for words in ([color.label for color in COLORS], PRODUCT_LINES, STYLES):
        assert len(set(words)) == len(words)


def test_colors_have_hex_codes() -> None:
    assert all(re.fullmatch("#[0-9a-f]{6}", color.hex_code) for color in COLORS)
