"""Run the benchmarks and print their figures; a run of all of them also writes README.md."""

import argparse
import importlib

from benchmarks import report
from benchmarks.machine import circumstances
from benchmarks.measure import Row, ShapeRow, say
from benchmarks.source import Generation

_SUITES = (
    "reads",
    "plain",
    "shapes",
    "small_scans",
    "latency",
    "memory",
    "catalogs",
    "walks",
    "changes",
    "checks",
    "history",
    "own_prices",
    "tables",
    "details",
    "url_lists",
    "imports",
    "resume",
    "sensor",
    "materialize",
    "many",
)
_GENERATIONS: dict[str, list[Generation]] = {
    "seed": ["seed"],
    "current": ["current"],
    "both": ["seed", "current"],
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", choices=_SUITES, help="run only this one, and leave README.md as it is"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="the number of rounds (default: 5)"
    )
    parser.add_argument(
        "--generation", choices=_GENERATIONS, default="both", help="the contract of the server"
    )
    options = parser.parse_args()
    generations = _GENERATIONS[options.generation]
    rows: list[Row | ShapeRow] = []
    for name in [options.only] if options.only else _SUITES:
        say(name)
        suite = importlib.import_module(f"benchmarks.suites.{name}")
        rows += suite.run(generations, options.rounds)
    print("\n".join([*circumstances(), f"* {options.rounds} rounds"]))
    for row in rows:
        print(row)
    if not options.only and options.generation == "both":
        report.write(rows)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
