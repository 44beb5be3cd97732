"""The words that any product may have: colors, product lines and styles."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Color:
    """A color: its label at the merchant, its CSS name, its family and its hex code."""

    label: str
    name: str
    family: str
    hex_code: str


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

PRODUCT_LINES = (
    "Weekender",
    '"Sunday Best"',
    "Søren",
    "Señorita",
    "Atlas",
    "Marlowe",
    "L'Été",
    "Koselig",
    "Juniper",
    "Tōkyō",
    "東京",
    "Ansel",
    "Wilder",
    "“Good Morning”",
    "Piccolo",
    "Ottilie",
    "Ridge",
    "Æther",
    "Nº 5",
    "Canyon",
    "Bowie & Finch",
    "Straße",
    "Meadow",
    "Ember",
)

STYLES = ("casual", "classic", "minimal", "bohemian", "sporty", "preppy", "utilitarian")
