"""The partition keys that listings get."""

from octogen_dagster.bigquery.listing_matching import match_partitions
from octogen_dagster.sharing.listings import Listing
from octogen_dagster.sharing.resource_names import ListingName

IDS = {"111": "octogen", "222": "somebody-else"}


class Comparison:
    """Compares names with the projects' numbers; remembers which ones."""

    def __init__(self) -> None:
        self.compared: list[tuple[str, str]] = []

    def __call__(self, one: ListingName, other: ListingName) -> bool | None:
        self.compared.append((one.project, other.project))
        projects = {IDS.get(name.project, name.project) for name in (one, other)}
        if "hidden" in projects:
            return None
        return len(projects) == 1


def listing(key: str) -> Listing:
    resource = "projects/{}/locations/{}/dataExchanges/{}/listings/{}".format(*key.split(":"))
    return Listing(resource, None, None, "us", "dataset", None)


def matched(keys: list[str], known: list[str]) -> dict[str, str]:
    """Which partition key each listing gets, by its own."""
    listings = {key: listing(key) for key in keys}
    by_key, invalid = match_partitions(list(listings.values()), known, Comparison())
    assert invalid == []
    own = {found.resource: key for key, found in listings.items()}
    return {own[found.resource]: key for key, found in by_key.items()}


def test_a_new_listing_gets_its_own_key() -> None:
    assert matched(["octogen:us:e:a"], []) == {"octogen:us:e:a": "octogen:us:e:a"}
    assert matched(["octogen:us:e:a"], ["octogen:us:e:b"]) == {"octogen:us:e:a": "octogen:us:e:a"}


def test_a_listing_keeps_its_partition_when_its_project_is_named_the_other_way() -> None:
    assert matched(["111:us:e:a"], ["octogen:us:e:a"]) == {"111:us:e:a": "octogen:us:e:a"}
    assert matched(["octogen:us:e:a"], ["111:us:e:a"]) == {"octogen:us:e:a": "111:us:e:a"}
    assert matched(["111:US:e:a"], ["octogen:us:e:a"]) == {"111:US:e:a": "octogen:us:e:a"}


def test_listings_of_two_publishers_keep_apart() -> None:
    known = ["octogen:us:e:a", "somebody-else:us:e:a"]
    assert matched(["222:us:e:a", "111:us:e:a"], known) == {
        "222:us:e:a": "somebody-else:us:e:a",
        "111:us:e:a": "octogen:us:e:a",
    }
    assert matched(["222:us:e:a"], ["octogen:us:e:a"]) == {"222:us:e:a": "222:us:e:a"}


def test_a_listing_whose_identity_cannot_be_told_gets_the_partition_that_is_there() -> None:
    assert matched(["hidden:us:e:a"], ["111:us:e:a"]) == {"hidden:us:e:a": "111:us:e:a"}
    known = ["111:us:e:a", "octogen:us:e:a"]
    assert matched(["222:us:e:a"], known) == {"222:us:e:a": "222:us:e:a"}
    assert matched(["hidden:us:e:a", "111:us:e:b"], ["octogen:us:e:b"]) == {
        "hidden:us:e:a": "hidden:us:e:a",
        "111:us:e:b": "octogen:us:e:b",
    }


def test_a_listing_that_is_named_in_both_ways_has_one_partition() -> None:
    keys = ["octogen:us:e:a", "111:us:e:a"]
    assert matched(keys, ["octogen:us:e:a"]) == {"octogen:us:e:a": "octogen:us:e:a"}
    assert matched(keys, ["111:us:e:a"]) == {"111:us:e:a": "111:us:e:a"}
    assert matched(keys, []) == {"octogen:us:e:a": "octogen:us:e:a"}
    three = [*keys, "octogen:US:e:a"]
    assert matched(three, ["octogen:Us:e:a"]) == {"octogen:us:e:a": "octogen:Us:e:a"}
    both = ["hidden:us:e:a", "111:us:e:a"]
    assert matched(both, []) == {key: key for key in both}


def test_names_are_compared_only_if_they_differ_in_nothing_but_the_project() -> None:
    comparison = Comparison()
    known = ["111:us:e:a", "octogen:us:e:b", "octogen:eu:e:c", "octogen:us:other:c"]
    new = [listing("octogen:us:e:b"), listing("octogen:us:e:c"), listing("octogen:us:e:a")]
    match_partitions(new, known, comparison)
    assert comparison.compared == [("octogen", "111")]


def test_partitions_that_are_no_listings_are_returned() -> None:
    known = ["z", "octogen:us:e:a", "a:b"]
    by_key, invalid = match_partitions([listing("octogen:us:e:a")], known, Comparison())
    assert invalid == ["a:b", "z"]
    assert by_key.keys() == {"octogen:us:e:a"}
