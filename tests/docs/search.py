"""Fail unless the search of the built site leads to the page that a reader looks for.

    uv run --group docs python -m tests.docs.search SITE

It ranks as the site does: by the index, the boosts and the stop words of Lunr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lunr import lunr

EXPECTED = {
    "price drop": "alerts/",
    "what is octogen": "",
    "competitor": "notify-slack/",
    "which asset do I need": "which-asset/",
    "fivetran": "coming-from/",
}
"""A page for each query; the address of the home page is empty."""


def main(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    boosts = index["config"]["fields"]
    fields = [{"field_name": name, "boost": boosts[name]["boost"]} for name in ("title", "text")]
    search = lunr(ref="location", fields=fields, documents=index["docs"])
    found = {query: search.search(query)[0]["ref"].partition("#")[0] for query in EXPECTED}
    wrong = {query: page for query, page in found.items() if page != EXPECTED[query]}
    if wrong:
        sys.exit(f"The search of the site leads elsewhere: {wrong}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
