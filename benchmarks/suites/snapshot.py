"""100,000 products to published Parquet, against the floor and other tools."""

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter

from benchmarks.measure import Row, run_rounds
from benchmarks.processes import server
from benchmarks.source import Generation

_OTHERS = {
    "bare_httpx": ("httpx.Client that throws the pages away", 1.3),
    "bare_async_httpx": ("httpx.AsyncClient that throws the pages away", None),
    "published_sdk": ("octogen-ai-sdk, `pl.DataFrame`, `write_parquet`", 0.2),
    "dlt_rest_api": ("dlt `rest_api` to Parquet", 0.2),
}


def run(generations: Sequence[Generation], rounds: int) -> Iterator[Row]:
    """Compare the time with that of each other tool."""
    for generation in generations:
        # The published SDK supports only the current generation.
        others = [name for name in _OTHERS if name != "published_sdk" or generation == "current"]
        with server(generation, {"grand-arcade": 100_000}) as local:
            contenders = {name: partial(local.measure, name) for name in ("snapshot", *others)}
            results = run_rounds(contenders, rounds)
        for name in others:
            other, target = _OTHERS[name]
            yield results.row(
                "snapshot",
                generation,
                f"100,000 products to Parquet ÷ {other}",
                ("snapshot", name),
                attrgetter("seconds"),
                "s",
                target,
            )
