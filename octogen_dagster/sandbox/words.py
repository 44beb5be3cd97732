"""The sandbox's vocabulary: shops, product kinds, brands and colors."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Kind:
    """A product kind, such as a running shoe, with a typical price in US dollars."""

    noun: str
    category_path: tuple[str, ...]
    price_usd: int
    attributes: Mapping[str, tuple[str, ...]]
    sizes: tuple[str, ...] = ()
    colored: bool = True
    gendered: bool = False
    is_activewear: bool = False


@dataclass(frozen=True)
class Brand:
    """A canonical brand, and the other spellings that merchants use."""

    name: str
    spellings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vertical:
    """A line of business: its product kinds, brands, and adjectives for titles."""

    kinds: tuple[Kind, ...]
    brands: tuple[Brand, ...]
    adjectives: tuple[str, ...]


@dataclass(frozen=True)
class Color:
    """A color: the label that merchants use, the CSS name, the family and the hex code."""

    label: str
    name: str
    family: str
    hex_code: str


@dataclass(frozen=True)
class Shop:
    """A merchant that has a catalog: the site without `www`, and the lines of business.

    The path of a product URL starts with `path`. If `has_source_url` is false, the catalog has no
    site URL.
    """

    key: str
    display_name: str
    domain: str
    verticals: tuple[str, ...]
    currency: str = "USD"
    has_source_url: bool = True
    path: str = ""


_ALPHA_SIZES = ("XS", "S", "M", "L", "XL", "XXL")
_SHOE_SIZES = ("36", "37", "38", "39", "40", "41", "42", "43", "44", "45")
_PATTERNS = ("solid", "striped", "floral", "checked")
_CLOTHING = ("Apparel & Accessories", "Clothing")


def _garment(noun: str, leaf: str, price: int, *materials: str, activewear: bool = False) -> Kind:
    fits = ("slim", "regular", "relaxed", "oversized")
    attributes = {"fit": fits, "material": materials, "pattern": _PATTERNS}
    path = (*_CLOTHING, "Activewear", leaf) if activewear else (*_CLOTHING, leaf)
    return Kind(noun, path, price, attributes, _ALPHA_SIZES, True, True, activewear)


def _shoe(noun: str, leaf: str, price: int, *materials: str, activewear: bool = False) -> Kind:
    closures = ("lace-up", "slip-on", "zip", "buckle")
    toes = ("round", "pointed", "square")
    attributes = {"material": materials, "closure": closures, "toe_shape": toes}
    path = ("Apparel & Accessories", "Shoes", leaf)
    return Kind(noun, path, price, attributes, _SHOE_SIZES, True, True, activewear)


def _gear(noun: str, leaf: str, price: int, *materials: str, **more: tuple[str, ...]) -> Kind:
    path = ("Sporting Goods", "Outdoor Recreation", "Camping & Hiking", leaf)
    sizes = more.pop("sizes", ())
    return Kind(noun, path, price, {"material": materials, **more}, sizes, leaf != "Cookware")


VERTICALS: Mapping[str, Vertical] = {
    "fashion": Vertical(
        kinds=(
            _garment("Shirt", "Shirts", 65, "cotton", "linen", "silk"),
            _garment("Midi Dress", "Dresses", 120, "viscose", "linen", "silk"),
            _garment("Piqué Polo", "Polos", 55, "cotton", "recycled polyester"),
            _garment("Wide-Leg Trousers", "Pants", 95, "wool", "linen", "cotton"),
            _garment("Selvedge Jeans", "Jeans", 140, "denim", "organic denim"),
            _garment("Crewneck Sweater", "Sweaters", 110, "merino", "cashmere", "cotton"),
            _garment("Trench Coat", "Coats & Jackets", 260, "cotton", "gabardine"),
            _garment("Pleated Skirt", "Skirts", 80, "wool", "satin"),
            _garment("Yoga Leggings", "Leggings", 75, "nylon", "elastane", activewear=True),
            _garment("Sports Bra", "Bras", 48, "nylon", "recycled polyester", activewear=True),
        ),
        brands=(
            Brand("Acme", ("ACME Inc.", "Acme®")),
            Brand("Maison Éclair", ("MAISON ECLAIR",)),
            Brand("Fjord & Field"),
            Brand("O'Hara", ("OHara Clothing Co.",)),
            Brand("Sólveig"),
            Brand("Nine Lanes"),
            Brand("Harrow"),
            Brand("Verano Studio", ("Verano",)),
            Brand("Kumo 雲"),
        ),
        adjectives=("Relaxed", "Tailored", "Garment-Dyed", "Vintage", "Essential", "Cropped"),
    ),
    "shoes": Vertical(
        kinds=(
            _shoe("Running Shoes", "Athletic Shoes", 130, "mesh", "knit", activewear=True),
            _shoe("Leather Sneakers", "Sneakers", 110, "leather", "suede"),
            _shoe("Chelsea Boots", "Boots", 190, "leather", "suede", "rubber"),
            _shoe("Espadrilles", "Espadrilles", 70, "canvas", "linen"),
            _shoe("Penny Loafers", "Loafers", 150, "leather", "patent leather"),
            _shoe("Sandals", "Sandals", 85, "leather", "cork"),
        ),
        brands=(
            Brand("Strada", ("STRADA S.p.A.",)),
            Brand("Bergmann"),
            Brand("Fleet Foot", ("FleetFoot", "Fleet Foot Ltd.")),
            Brand("Calzados Niño"),
            Brand("Low Tide"),
            Brand("Acme", ("ACME Inc.",)),
        ),
        adjectives=("Cushioned", "Classic", "Hand-Stitched", "Everyday", "Lightweight"),
    ),
    "outdoor": Vertical(
        kinds=(
            _garment("Rain Jacket", "Jackets", 180, "gore-tex", "nylon", activewear=True),
            _garment("Fleece Pullover", "Fleece", 90, "recycled polyester", "wool"),
            _gear("Two-Person Tent", "Tents", 320, "nylon", season=("3-season", "4-season")),
            _gear("Down Sleeping Bag", "Sleeping Bags", 240, "down", sizes=("Regular", "Long")),
            _gear("Trail Backpack", "Backpacks", 150, "cordura", capacity=("22 l", "38 l")),
            _gear("Titanium Mug", "Cookware", 38, "titanium", capacity=("450 ml", "650 ml")),
        ),
        brands=(
            Brand("Northpeak", ("NORTHPEAK™", "North Peak")),
            Brand("Tundra Works"),
            Brand("Ångström"),
            Brand("Cairn & Co."),
            Brand("Moraine"),
        ),
        adjectives=("Alpine", "Packable", "Waterproof", "Expedition", "Ultralight"),
    ),
}

COLORS = (
    Color("Midnight Navy", "navy", "Blue", "#000080"),
    Color("Sky", "skyblue", "Blue", "#87ceeb"),
    Color("Jet Black", "black", "Black", "#000000"),
    Color("Off White", "ivory", "White", "#fffff0"),
    Color("Écru", "beige", "Brown", "#f5f5dc"),
    Color("Cognac", "sienna", "Brown", "#a0522d"),
    Color("Burnt Orange", "darkorange", "Orange", "#ff8c00"),
    Color("Cherry Red", "crimson", "Red", "#dc143c"),
    Color("Rosé", "pink", "Pink", "#ffc0cb"),
    Color("Moss", "olive", "Green", "#808000"),
    Color("Forest", "darkgreen", "Green", "#006400"),
    Color("Saffron", "gold", "Yellow", "#ffd700"),
    Color("Plum", "purple", "Purple", "#800080"),
    Color("Heather Gray", "gray", "Gray", "#808080"),
)

# fmt: off
PRODUCT_LINES = (
    "Weekender", '"Sunday Best"', "Søren", "Señorita", "Atlas", "Marlowe", "L'Été", "Koselig",
    "Juniper", "Tōkyō", "東京", "Ansel", "Wilder", "“Good Morning”", "Piccolo", "Ottilie", "Ridge",
    "Æther", "Nº 5", "Canyon", "Bowie & Finch", "Straße", "Meadow", "Ember",
)
# fmt: on

STYLES = ("casual", "classic", "minimal", "bohemian", "sporty", "preppy", "utilitarian")

PRICES_OF_A_DOLLAR = {"USD": 1.0, "EUR": 0.9, "GBP": 0.8, "SEK": 10.0, "JPY": 150.0}
"""The price of one US dollar in each currency."""

SHOPS = (
    Shop("harbor-and-pine", "Harbor & Pine", "harborandpine.example", ("fashion",)),
    Shop("northpeak", "Northpeak Outfitters", "northpeak.example", ("outdoor",)),
    Shop("strada", "Strada Calzature", "strada.example", ("shoes",), "EUR"),
    Shop("kumo", "Kumo 雲", "kumo.example", ("fashion", "shoes"), "JPY", has_source_url=False),
    Shop("grand-arcade", "The Grand Arcade", "grandarcade.example", tuple(VERTICALS)),
)


def words_of(text: str) -> frozenset[str]:
    """Return the words in `text` without case and accents, for keyword matching."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return frozenset(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))


@cache
def slug_of(text: str) -> str:
    """Return `text` as an ASCII URL segment."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "item"
