"""The built-in merchants of the sandbox. Only data; what they sell is in `verticals`."""

from dataclasses import dataclass

from octogen_dagster.sandbox.data.verticals import VERTICALS


@dataclass(frozen=True)
class Shop:
    """A built-in merchant: its catalog key, what people call it, and what it sells.

    Attributes:
        price_factor: What one US dollar of typical price becomes in `currency`.
    """

    key: str
    display_name: str
    domain: str
    verticals: tuple[str, ...]
    currency: str = "USD"
    price_factor: float = 1.0
    has_source_url: bool = True


SHOPS = (
    Shop("harbor-and-pine", "Harbor & Pine", "harborandpine.example", ("fashion",)),
    Shop("northpeak", "Northpeak Outfitters", "northpeak.example", ("outdoor",)),
    Shop("casa-lumiere", "Casa Lumière", "casalumiere.example", ("home",), "EUR", 0.9),
    Shop("strada", "Strada Calzature", "strada.example", ("shoes",), "EUR", 0.9),
    Shop("voltaic", "Voltaic", "voltaic.example", ("electronics",)),
    Shop("creme-and-co", "Crème & Co.", "cremeandco.example", ("beauty",), "GBP", 0.8),
    Shop("little_otter", "Little Otter", "littleotter.example", ("kids",)),
    Shop("fjord.field", "Fjord & Field", "fjordfield.example", ("fashion", "outdoor"), "SEK", 10.0),
    Shop("aurum-atelier", "Aurum Atelier", "aurumatelier.example", ("jewelry",), "EUR", 0.9),
    Shop("kumo", "Kumo 雲", "kumo.example", ("fashion", "beauty"), "JPY", 150.0),
    Shop("grand-arcade", "The Grand Arcade", "grandarcade.example", tuple(VERTICALS)),
    Shop("lowtide", "Low Tide", "lowtide.example", ("shoes", "jewelry"), has_source_url=False),
)
