"""How the hub of a sandbox answers where the real services differ from day to day."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class HubSettings:
    """May be changed at any time; the next answer follows.

    Attributes:
        listing_project: Whether a subscription names the project of its listing by its `id` or
            by its `number`. Requests may always use either.
        get_listing_project: How `GetListing` and `ListListings` name that project: by its `id`,
            by its `number`, or `as_asked`.
        linked_dataset_in: Which field of a subscription says where its linked dataset is.
        destination_first: Whether `SubscribeListing` says that the dataset is taken before it says
            that the right to subscribe is missing.
        access_token_seconds: How long an access token lives.
        rotate_refresh_tokens: Whether a refresh token is replaced when it is used. The old
            one is worthless from that moment on.
    """

    listing_project: Literal["id", "number"] = "id"
    get_listing_project: Literal["id", "number", "as_asked"] = "id"
    linked_dataset_in: Literal["linked_dataset_map", "destination_dataset", "both", "neither"] = (
        "both"
    )
    destination_first: bool = False
    access_token_seconds: float = 300
    rotate_refresh_tokens: bool = False
