"""Draws line charts and bar charts as SVG images."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from xml.sax.saxutils import escape

import polars as pl

_WIDTH, _HEIGHT, _MARGIN, _BAR = 375, 150, 36, 18
_COLORS = ("#44d", "#d70")
_TEXT = 'font-family="sans-serif" font-size="11" fill="#777"'


def price_index_svg(index: pl.DataFrame) -> str:
    """Draw the price index over time, from a `price_index` frame, as an SVG image.

    If the index is above 1, your prices are higher than your competitors' prices.
    """
    return lines_svg(index["day"].to_list(), {"price index": index["index"].to_list()}, "{:.3f}")


def lines_svg(
    days: Sequence[date], lines: Mapping[str, Sequence[float | None]], form: str = "{:.0f}"
) -> str:
    """Draw a line chart with one line per name. Lines have gaps where the value is None.

    `form` is the format string for the numbers.
    """
    known = [each for line in lines.values() for each in line if each is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    height = high - low or 1.0
    step = (_WIDTH - 2 * _MARGIN) / max(len(days) - 1, 1)
    bottom = _HEIGHT - _MARGIN

    def point(place: int, value: float) -> str:
        share = (value - low) / height if high > low else 0.5
        return f"{_MARGIN + place * step:.0f},{bottom - share * (bottom - _MARGIN):.0f}"

    parts, x = list[str](), _MARGIN
    for (name, line), color in zip(lines.items(), _COLORS, strict=False):
        run: list[str] = []
        for place, value in enumerate([*line, None]):
            if value is not None:
                run.append(point(place, value))
            elif run:  # a single point becomes a dot: a line to itself with round ends
                parts.append(
                    f'<polyline points="{" ".join(run if len(run) > 1 else run * 2)}" fill="none" '
                    f'stroke="{color}" stroke-width="2" stroke-linecap="round"/>'
                )
                run = []
        parts.append(f'<text x="{x}" y="14" fill="{color}">{escape(name)}</text>')
        x += _WIDTH // 2
    if known:
        ends = {form.format(high): _MARGIN + 4} | {form.format(low): bottom}
        parts += [_label(0, y, text) for text, y in ends.items()]
    if days:
        parts += [_label(_MARGIN, _HEIGHT - 12, f"{days[0]}")]
    if len(days) > 1:
        parts += [_label(_WIDTH - _MARGIN - 30, _HEIGHT - 12, f"{days[-1]}")]
    return _svg(_HEIGHT, parts)


def shares_svg(shares: Mapping[str, float]) -> str:
    """Draw a bar chart of shares between 0 and 1, with one bar per name."""
    parts = []
    for place, (name, share) in enumerate(shares.items()):
        y = place * _BAR
        width = share * (_WIDTH - 4 * _MARGIN - 40)
        shown = name if len(name) <= 20 else f"{name[:19]}…"
        parts += [
            _label(0, y + 13, shown),
            f'<rect x="{4 * _MARGIN}" y="{y + 4}" width="{width:.0f}" height="10" '
            f'fill="{_COLORS[0]}"/>',
            _label(_WIDTH - 36, y + 13, f"{share:.0%}"),
        ]
    return _svg(max(len(shares), 1) * _BAR, parts)


def _label(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'


def _svg(height: int, parts: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {_TEXT}>{"".join(parts)}</svg>'


def inline_svg(text: str, svg: str) -> str:
    """Return a Markdown image that the UI shows without a request, with `text` as alt text."""
    return f"![{text}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"
