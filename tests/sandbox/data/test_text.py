"""Text in searches and URLs."""

from octogen_dagster.sandbox.data.text import slug_of, word_list, words_of


def test_words_ignore_case_and_accents() -> None:
    assert words_of("L'Été, CRÈME & 東京") == {"l", "ete", "creme", "東京"}


def test_a_slug_is_ascii_for_any_text() -> None:
    assert slug_of("Crème & Co.") == "creme-co"
    assert slug_of("東京") == "item"


def test_a_list_of_words_keeps_their_order() -> None:
    assert word_list("Crème & Co., the CRÈME") == ["creme", "co", "the", "creme"]
