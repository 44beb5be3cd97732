"""The kinds of product, and their brands, by line of business.

Which merchant sells what is in `shops`; `product` builds a product from this data.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of product, such as a running shoe.

    Attributes:
        noun: The noun with which a title ends.
        category_path: The category names, from the root of the taxonomy to the leaf.
        typical_price: The typical price, in US dollars.
        attributes: Attribute name to the values that a product may have.
        sizes: The sizes it is sold in; empty if it has none.
        colored: True if it is sold in colors.
        gendered: True if it is made for a gender and an age group.
        is_activewear: True if it is made for sport.
    """

    noun: str
    category_path: tuple[str, ...]
    typical_price: int
    attributes: Mapping[str, tuple[str, ...]]
    sizes: tuple[str, ...] = ()
    colored: bool = True
    gendered: bool = False
    is_activewear: bool = False


@dataclass(frozen=True)
class Brand:
    """A canonical brand, and the other spellings that merchants use for it."""

    name: str
    spellings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vertical:
    """A line of business: its kinds of product, its brands and the adjectives of its titles."""

    kinds: tuple[Kind, ...]
    brands: tuple[Brand, ...]
    adjectives: tuple[str, ...]


_ALPHA_SIZES = ("XS", "S", "M", "L", "XL", "XXL")
_SHOE_SIZES = ("36", "37", "38", "39", "40", "41", "42", "43", "44", "45")
_FITS = ("slim", "regular", "relaxed", "oversized")
_PATTERNS = ("solid", "striped", "floral", "checked")
_CLOTHING = ("Apparel & Accessories", "Clothing")
_SHOES = ("Apparel & Accessories", "Shoes")
_OUTDOOR = ("Sporting Goods", "Outdoor Recreation")
_HOME = ("Home & Garden",)
_BEAUTY = ("Health & Beauty", "Personal Care")
_ELECTRONICS = ("Electronics",)
_TOYS = ("Toys & Games", "Toys")
_JEWELRY = ("Apparel & Accessories", "Jewelry")


def _garment(noun: str, leaf: str, price: int, *materials: str, activewear: bool = False) -> Kind:
    attributes = {"fit": _FITS, "material": materials, "pattern": _PATTERNS}
    path = (*_CLOTHING, "Activewear", leaf) if activewear else (*_CLOTHING, leaf)
    return Kind(
        noun, path, price, attributes, _ALPHA_SIZES, gendered=True, is_activewear=activewear
    )


def _shoe(noun: str, leaf: str, price: int, *materials: str, activewear: bool = False) -> Kind:
    attributes = {
        "material": materials,
        "closure": ("lace-up", "slip-on", "zip", "buckle"),
        "toe_shape": ("round", "pointed", "square"),
    }
    return Kind(
        noun,
        (*_SHOES, leaf),
        price,
        attributes,
        _SHOE_SIZES,
        gendered=True,
        is_activewear=activewear,
    )


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
            Kind(
                "Two-Person Tent",
                (*_OUTDOOR, "Camping & Hiking", "Tents"),
                320,
                {"material": ("ripstop nylon", "polyester"), "season": ("3-season", "4-season")},
            ),
            Kind(
                "Down Sleeping Bag",
                (*_OUTDOOR, "Camping & Hiking", "Sleeping Bags"),
                240,
                {"material": ("down", "synthetic"), "comfort": ("5 °C", "0 °C", "-7 °C")},
                ("Regular", "Long"),
            ),
            Kind(
                "Trail Backpack",
                (*_OUTDOOR, "Camping & Hiking", "Backpacks"),
                150,
                {"material": ("cordura", "ripstop nylon"), "capacity": ("22 l", "38 l", "60 l")},
            ),
            Kind(
                "Titanium Mug",
                (*_OUTDOOR, "Camping & Hiking", "Cookware"),
                38,
                {"material": ("titanium",), "capacity": ("450 ml", "650 ml")},
                colored=False,
            ),
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
    "home": Vertical(
        kinds=(
            Kind(
                "Linen Duvet Cover",
                (*_HOME, "Linens & Bedding", "Bedding", "Duvet Covers"),
                140,
                {"material": ("linen", "cotton percale"), "thread_count": ("160", "300")},
                ("Twin", "Queen", "King"),
            ),
            Kind(
                "Table Lamp",
                (*_HOME, "Lighting", "Lamps"),
                95,
                {"material": ("ceramic", "brass", "glass"), "bulb": ("E14", "E27")},
            ),
            Kind(
                "Dutch Oven",
                (*_HOME, "Kitchen & Dining", "Cookware", "Dutch Ovens"),
                210,
                {"material": ("cast iron", "enamel"), "capacity": ("4 l", "6 l")},
            ),
            Kind(
                "Wool Rug",
                (*_HOME, "Decor", "Rugs"),
                380,
                {"material": ("wool", "jute"), "pattern": ("solid", "geometric", "kilim")},
                ("120 x 180 cm", "160 x 230 cm", "200 x 300 cm"),
            ),
            Kind(
                "Oak Side Table",
                ("Furniture", "Tables", "Side Tables"),
                260,
                {"material": ("oak", "walnut"), "finish": ("oiled", "lacquered")},
                colored=False,
            ),
        ),
        brands=(
            Brand("Casa Lumière", ("Casa Lumiere GmbH",)),
            Brand("Halden"),
            Brand("Brød & Bord"),
            Brand("Stoneware Society"),
            Brand("Loom 12"),
        ),
        adjectives=("Stonewashed", "Hand-Thrown", "Woven", "Minimal", "Heirloom"),
    ),
    "beauty": Vertical(
        kinds=(
            Kind(
                "Face Serum",
                (*_BEAUTY, "Cosmetics", "Skin Care", "Serums"),
                42,
                {"skin_type": ("dry", "oily", "sensitive", "all"), "scent": ("none", "rose")},
                ("30 ml", "50 ml"),
                colored=False,
            ),
            Kind(
                "Matte Lipstick",
                (*_BEAUTY, "Cosmetics", "Makeup", "Lip Makeup"),
                24,
                {"finish": ("matte", "satin"), "skin_type": ("all",)},
            ),
            Kind(
                "Eau de Parfum",
                (*_BEAUTY, "Cosmetics", "Perfume & Cologne"),
                98,
                {"scent": ("citrus", "woody", "rose", "amber")},
                ("30 ml", "50 ml", "100 ml"),
                colored=False,
                gendered=True,
            ),
            Kind(
                "Shampoo Bar",
                (*_BEAUTY, "Hair Care", "Shampoo"),
                14,
                {"hair_type": ("curly", "fine", "dry"), "scent": ("none", "citrus")},
                colored=False,
            ),
        ),
        brands=(
            Brand("Crème & Co.", ("CREME AND CO", "Creme & Co Beauty Ltd")),
            Brand("Botanik"),
            Brand("Yūgen"),
            Brand("Salt Garden"),
        ),
        adjectives=("Hydrating", "Gentle", "Overnight", "Radiant", "Vegan"),
    ),
    "electronics": Vertical(
        kinds=(
            Kind(
                "Wireless Headphones",
                (*_ELECTRONICS, "Audio", "Headphones"),
                180,
                {"connectivity": ("bluetooth", "wired"), "battery_life": ("20 h", "40 h")},
            ),
            Kind(
                'Monitor 27"',
                (*_ELECTRONICS, "Video", "Computer Monitors"),
                340,
                {"resolution": ("1440p", "4k"), "refresh_rate": ("60 hz", "144 hz")},
                colored=False,
            ),
            Kind(
                "Mechanical Keyboard",
                (*_ELECTRONICS, "Computers", "Input Devices", "Keyboards"),
                120,
                {"switch": ("linear", "tactile"), "connectivity": ("usb-c", "bluetooth")},
            ),
            Kind(
                "Smart Speaker",
                (*_ELECTRONICS, "Audio", "Speakers"),
                90,
                {"connectivity": ("wi-fi", "bluetooth"), "material": ("fabric", "aluminium")},
            ),
        ),
        brands=(
            Brand("Voltaic", ("VOLTAIC CORP", "Voltaic Electronics")),
            Brand("Sonore"),
            Brand("Pixelwerk"),
            Brand("Nimbus Labs"),
        ),
        adjectives=("Compact", "Studio", "Noise-Cancelling", "Pro", "Refurbished"),
    ),
    "kids": Vertical(
        kinds=(
            Kind(
                "Wooden Train Set",
                (*_TOYS, "Play Vehicles", "Trains"),
                48,
                {"material": ("beech", "birch"), "pieces": ("20", "45", "80")},
                colored=False,
            ),
            Kind(
                "Plush Bear",
                (*_TOYS, "Dolls & Playsets", "Stuffed Animals"),
                28,
                {"material": ("cotton", "alpaca")},
                ("Small", "Large"),
            ),
            Kind(
                "Baby Romper",
                (*_CLOTHING, "Baby & Toddler", "One-Pieces"),
                32,
                {"material": ("organic cotton", "merino"), "pattern": _PATTERNS},
                ("0-3M", "3-6M", "6-12M", "12-18M"),
                gendered=True,
            ),
            Kind(
                "Rain Boots",
                (*_SHOES, "Boots"),
                40,
                {"material": ("rubber",), "closure": ("slip-on",)},
                ("22", "24", "26", "28", "30"),
                gendered=True,
            ),
        ),
        brands=(
            Brand("Little Otter", ("LittleOtter Kids",)),
            Brand("Bärenkind"),
            Brand("Puddle & Jump"),
            Brand("Trä"),
        ),
        adjectives=("Playful", "Soft", "Natural", "My First", "Rainbow"),
    ),
    "jewelry": Vertical(
        kinds=(
            Kind(
                "Hoop Earrings",
                (*_JEWELRY, "Earrings"),
                85,
                {"metal": ("gold", "silver", "rose gold"), "stone": ("none", "pearl")},
                colored=False,
                gendered=True,
            ),
            Kind(
                "Signet Ring",
                (*_JEWELRY, "Rings"),
                160,
                {"metal": ("gold", "silver"), "stone": ("none", "onyx")},
                ("50", "52", "54", "56", "58"),
                colored=False,
                gendered=True,
            ),
            Kind(
                "Field Watch",
                (*_JEWELRY, "Watches"),
                280,
                {"material": ("steel", "titanium"), "movement": ("automatic", "quartz")},
                gendered=True,
            ),
        ),
        brands=(
            Brand("Aurum Atelier", ("AURUM",)),
            Brand("Perla Núñez"),
            Brand("Tidewater Watch Co."),
        ),
        adjectives=("Polished", "Hammered", "Fine", "Sculptural"),
    ),
}

KINDS = tuple(kind for vertical in VERTICALS.values() for kind in vertical.kinds)
"""All kinds of product."""

CATEGORY_PATHS = frozenset(
    tuple(name.casefold() for name in kind.category_path[:depth])
    for kind in KINDS
    for depth in range(1, len(kind.category_path) + 1)
)
"""All categories of the taxonomy, each as its path in lower case."""
