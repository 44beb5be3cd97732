"""Normalizes product URLs, so that URLs of the same page can be matched without a request.

According to Octogen's published client, a lookup forces https, strips a leading `www.`, fragments
and known tracking parameters, and sorts the other parameters. This package adds the other rules.
"""

from __future__ import annotations

from urllib.parse import quote

import polars as pl

_PARTS = r"(?i)^https?://(?:www\.)?([^/?#:@]+)(:\d+)?([^?#]*)(?:\?([^#]*))?"
_TRACKING = (
    r"(?i)^(?:utm_[^=]*|[a-z]*clid|msclkid|gclsrc|[gw]braid|mc_[ce]id|igshid|srsltid)(?:=|$)"
)
_NORMAL = r"^https://[a-z0-9.-]*[a-z0-9-](?:/[!-\"$&->@-~]*[!-\"$&-.0->@-~])?$"
"""Matches normalized URLs without parameters. URLs with a leading `www.` also match."""
_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_CODES = [f"%{byte:02X}" for byte in range(256)]
_DECODED = [chr(n) if chr(n) in _UNRESERVED else code for n, code in enumerate(_CODES)]
_ASCII = "".join(map(chr, range(ord("!"), ord("~") + 1)))


def normalized_url(url: pl.Expr) -> pl.Expr:
    """Normalize a URL, so that different spellings of the same URL become equal.

    The scheme becomes https, and the host becomes lowercase without a leading `www.` or default
    port. Fragments, trailing slashes and tracking parameters are removed, and the other parameters
    are sorted. Percent-encoding is unified. Any other text becomes null.
    """
    return url.cast(pl.String).map_batches(_normalized, return_dtype=pl.String, is_elementwise=True)


def _normalized(urls: pl.Series) -> pl.Series:
    # Most URLs are normalized already, and checking takes a tenth of the time.
    is_other = ~urls.str.contains(_NORMAL) | urls.str.starts_with("https://www.")
    places = is_other.arg_true()
    return urls.clone().scatter(places, _in_form(urls.gather(places))) if len(places) else urls


def _in_form(urls: pl.Series) -> pl.Series:
    urls = urls.str.strip_chars()
    others = urls.filter(urls.str.contains("[^!-~]")).unique()
    codes = {each: quote(each, safe=_ASCII) for each in others}
    urls = urls.replace(codes).str.replace_many(_CODES, _DECODED, ascii_case_insensitive=True)
    host, port, path, query = (pl.col(each) for each in "1234")
    kept = pl.element().filter((pl.element() != "") & ~pl.element().str.contains(_TRACKING))
    parameters = query.fill_null("").str.split("&").list.eval(kept.sort()).list.join("&")
    form = (
        "https://"
        + host.str.to_lowercase().str.strip_chars_end(".")
        + port.replace([":80", ":443"], "").fill_null("")
        + path.str.strip_chars_end("/")
        # `replace` matches whole values, so only a `?` without parameters is removed.
        + ("?" + parameters).replace("?", "")
    )
    return urls.str.extract_groups(_PARTS).struct.unnest().select(form).to_series()
