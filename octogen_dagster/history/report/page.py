"""The page of a report: one HTML file with its data, its charts' library and no network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octogen_dagster.errors import MissingPackageError

_TEMPLATE = Path(__file__).with_name("page.html")


def report_page(data: Mapping[str, Any]) -> str:
    """Return a page that shows the data of `report_data`.

    The data is compressed and encoded, so that no text of a shop is markup. The policy of the page
    forbids it to load or to send anything.

    Raises:
        MissingPackageError: The package of the extra `report` is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise MissingPackageError(
            'A report needs vl-convert-python: pip install "octogen-dagster[report]"'
        ) from None
    compressed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    library = library.replace("</script", r"<\/script")
    page = _TEMPLATE.read_text(encoding="utf-8")
    page = page.replace("@DATA@", base64.b64encode(compressed).decode())
    return page.replace("/* LIBRARY */", library)
