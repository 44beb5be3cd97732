"""Settings of the hub for what differs from one real service to the next."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class HubSettings:
    """The choices that the services of the hub make in their responses.

    A change takes effect with the next response.

    Attributes:
        listing_project: A subscription names the project of its listing by its `id` or by its
            `number`. Requests may always use either.
        get_listing_project: `GetListing` and `ListListings` name that project by its `id`, by its
            `number`, or `as_asked`.
        linked_dataset_in: The field of a subscription that names its linked dataset.
        destination_first: True if `SubscribeListing` reports a dataset that is taken before a
            missing right to subscribe.
        access_token_seconds: The lifetime of an access token, in seconds.
        rotate_refresh_tokens: True if a refresh token is replaced, and invalid, once it is used.
    """

    listing_project: Literal["id", "number"] = "id"
    get_listing_project: Literal["id", "number", "as_asked"] = "id"
    linked_dataset_in: Literal["linked_dataset_map", "destination_dataset", "both", "neither"] = (
        "both"
    )
    destination_first: bool = False
    access_token_seconds: float = 300
    rotate_refresh_tokens: bool = False
