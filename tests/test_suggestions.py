"""Names that are mistyped."""

from octogen_dagster.suggestions import did_you_mean


def test_only_a_similar_name_is_meant() -> None:
    assert did_you_mean("north-peak", ["northpeak", "strada"]) == " Did you mean 'northpeak'?"
    assert did_you_mean("farfetch", ["northpeak", "strada"]) == ""
    assert did_you_mean("strada", ["strada"]) == ""
