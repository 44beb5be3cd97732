"""The built-in merchants. What they sell is in `verticals`."""

from dataclasses import dataclass

from octogen_dagster.sandbox.data.verticals import VERTICALS


@dataclass(frozen=True)
class Shop:
    """A merchant.

    Attributes:
        key: The catalog key.
        display_name: The name of the merchant.
        domain: The domain of its site, without `www`.
        verticals: The names of its lines of business.
        currency: The currency of most of its prices.
        has_source_url: True if the catalog shows the URL of the site.
        path: The path on the site below which the products of the catalog are.
    """

    key: str
    display_name: str
    domain: str
    verticals: tuple[str, ...]
    currency: str = "USD"
    has_source_url: bool = True
    path: str = ""


PRICES_OF_A_DOLLAR = {"USD": 1.0, "EUR": 0.9, "GBP": 0.8, "SEK": 10.0, "JPY": 150.0}
"""The price of one US dollar in each currency."""


SHOPS = (
    Shop("harbor-and-pine", "Harbor & Pine", "harborandpine.example", ("fashion",)),
    Shop("northpeak", "Northpeak Outfitters", "northpeak.example", ("outdoor",)),
    Shop("casa-lumiere", "Casa Lumière", "casalumiere.example", ("home",), "EUR"),
    Shop("strada", "Strada Calzature", "strada.example", ("shoes",), "EUR"),
    Shop("voltaic", "Voltaic", "voltaic.example", ("electronics",)),
    Shop("creme-and-co", "Crème & Co.", "cremeandco.example", ("beauty",), "GBP"),
    Shop("little_otter", "Little Otter", "littleotter.example", ("kids",)),
    Shop("fjord.field", "Fjord & Field", "fjordfield.example", ("fashion", "outdoor"), "SEK"),
    Shop("aurum-atelier", "Aurum Atelier", "aurumatelier.example", ("jewelry",), "EUR"),
    Shop("kumo", "Kumo 雲", "kumo.example", ("fashion", "beauty"), "JPY"),
    Shop("grand-arcade", "The Grand Arcade", "grandarcade.example", tuple(VERTICALS)),
    Shop("lowtide", "Low Tide", "lowtide.example", ("shoes", "jewelry"), has_source_url=False),
)
