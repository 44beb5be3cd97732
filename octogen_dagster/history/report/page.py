"""report_page: a self-contained HTML file with the report's data and libraries."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octogen_dagster.validation import require_extras

_TEMPLATE = Path(__file__).with_name("page.html")


def report_page(data: Mapping[str, Any]) -> str:
    """Return an HTML page that shows the data from `report_data`.

    The data is compressed and base64-encoded, so text from shops cannot become markup. The page's
    Content-Security-Policy blocks all requests.

    Raises:
        MissingPackageError: The `report` extra is not installed.
    """
    require_extras("The report", "report")
    import vl_convert

    compressed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    library = library.replace("</script", r"<\/script")
    page = _TEMPLATE.read_text(encoding="utf-8")
    page = page.replace("@DATA@", base64.b64encode(compressed).decode())
    return page.replace("/* LIBRARY */", library)
