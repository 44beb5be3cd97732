"""The defaults of the hub's settings, which follow the documented services."""

from octogen_dagster.sandbox.hub.settings import HubSettings


def test_the_defaults_follow_the_documented_services() -> None:
    assert HubSettings() == HubSettings(
        listing_project="id",
        get_listing_project="id",
        linked_dataset_in="both",
        destination_first=False,
        access_token_seconds=300,
        rotate_refresh_tokens=False,
    )
