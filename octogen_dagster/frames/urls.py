"""Which addresses are the same page, where no answer of the service says it.

Of lookups the published client says that Octogen forces https, strips a leading `www.`, fragments
and known tracking parameters, and sorts the other parameters. The rest is ours.
"""

from __future__ import annotations

from urllib.parse import quote

import polars as pl

_PARTS = r"(?i)^https?://(?:www\.)?([^/?#:@]+)(:\d+)?([^?#]*)(?:\?([^#]*))?"
_TRACKING = (
    r"(?i)^(?:utm_[^=]*|[a-z]*clid|msclkid|gclsrc|[gw]braid|mc_[ce]id|igshid|srsltid)(?:=|$)"
)
_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_CODES = [f"%{byte:02X}" for byte in range(256)]
_DECODED = [chr(n) if chr(n) in _UNRESERVED else code for n, code in enumerate(_CODES)]
_ASCII = "".join(map(chr, range(ord("!"), ord("~") + 1)))


def normalized_url(url: pl.Expr) -> pl.Expr:
    """The form of an address that is the same for all spellings of its page; null if it is none.

    The scheme is https, the host is in lower case and has no leading `www.` and no default port.
    There is no fragment, no trailing slash and no parameter of a campaign; the others are sorted.
    Each character has one percent code, or none.
    """
    text = url.cast(pl.String).str.strip_chars()
    text = text.map_batches(_encoded, return_dtype=pl.String, is_elementwise=True)
    text = text.str.replace_many(_CODES, _DECODED, ascii_case_insensitive=True)
    host, port, path, query = (text.str.extract(_PARTS, group) for group in (1, 2, 3, 4))
    parameter = pl.element()
    kept = parameter.filter((parameter != "") & ~parameter.str.contains(_TRACKING))
    query = query.fill_null("").str.split("&").list.eval(kept.sort()).list.join("&")
    return (
        "https://"
        + host.str.to_lowercase().str.strip_chars_end(".")
        + pl.when(port.is_in([":80", ":443"])).then(None).otherwise(port).fill_null("")
        + path.str.strip_chars_end("/")
        + pl.when(query != "").then("?" + query).otherwise(pl.lit(""))
    )


def _encoded(urls: pl.Series) -> pl.Series:
    """Addresses with the percent codes of what is not ASCII, or blank."""
    others = urls.filter(urls.str.contains("[^!-~]")).unique()
    return urls.replace(others, [quote(each, safe=_ASCII) for each in others])
