"""What is known about a brand."""

from octogen_dagster.sandbox.data.brands import BRANDS, origin_country, quality_score


def test_the_quality_is_between_1_and_6_or_unknown() -> None:
    scores = [quality_score(brand) for brand in BRANDS]
    assert None in scores
    assert all(1 <= score <= 6 for score in scores if score is not None)
    assert len(set(scores)) > 5


def test_brands_come_from_several_countries() -> None:
    assert len({origin_country(brand) for brand in BRANDS}) > 3
