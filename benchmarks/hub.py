"""The sandbox's Analytics Hub with an exchange full of listings, alone in its process.

`python -m benchmarks.hub LISTINGS` prints its endpoint and its exchange, and runs until its
standard input is closed. PROJECT is subscribed to every listing.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.processes import ROOT

PROJECT = "my-project"


@contextlib.contextmanager
def hub(listings: int) -> Iterator[tuple[str, str]]:
    """Run a hub with that many listings; yields its endpoint and its exchange."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.hub", str(listings)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            endpoint, exchange = json.loads(process.stdout.readline())
            yield endpoint, exchange
        finally:
            process.stdin.close()


def _serve(listings: int) -> None:
    from octogen_dagster.sandbox.server import Sandbox

    with Sandbox(catalogs=1, hub=True) as sandbox:
        for number in range(listings):
            resource = sandbox.hub.share(f"catalog-{number:05}")
            sandbox.hub.subscribe(resource, PROJECT, f"octogen_{number:05}")
        print(json.dumps([sandbox.hub.endpoint, sandbox.hub.exchange]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
