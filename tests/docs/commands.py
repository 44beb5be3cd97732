"""What the commands of a block do in a test: they run, but install nothing and do not stay.

`install_commands` puts this file on the PATH under the name of each command.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

NAMES = ("dagster", "dagster-daemon", "dagster-webserver", "dg", "octogen-dagster", "pip", "uv")
STAYING = {
    ("dagster", "dev"),
    ("dagster-daemon", "run"),
    ("dagster-webserver", ""),
    ("dg", "dev"),
    ("octogen-dagster", "demo"),
    ("octogen-dagster", "login"),
    ("octogen-dagster", "sandbox"),
    ("octogen-dagster", "report"),
    ("octogen-dagster", "sql"),
    # The doctor finds what the examples' module, bucket and project do not have.
    ("octogen-dagster", "doctor"),
}
"""Commands that run until they are stopped or need what no test has. `--help` ends them after their
options were parsed."""


def install_commands(folder: Path) -> None:
    """Write a script for each command into a folder, which becomes the first one of the PATH."""
    for name in NAMES:
        script = folder / name
        script.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
        script.chmod(0o755)


def main(name: str, arguments: list[str]) -> None:
    if (name == "pip" and arguments[0] == "install") or (name == "uv" and arguments[0] == "add"):
        check_requirements(arguments[1:])
    elif name == "uv" and arguments[0] == "run":
        if arguments[1] == "--env-file":
            lines = Path(arguments[2]).read_text().splitlines()
            os.environ.update(dict(line.split("=", 1) for line in lines))
            arguments = arguments[2:]
        main(arguments[1], arguments[2:])
    else:
        program = shutil.which(name, path=str(Path(sys.executable).parent))
        assert program, f"The test knows no command {name}."
        stays = STAYING & {(name, ""), (name, arguments[0])}
        if Path("snapshots").is_dir():  # a reader who follows a guide has some
            stays -= {("octogen-dagster", "sql")}
        os.execv(program, [program, *arguments, *(["--help"] if stays else [])])


def check_requirements(arguments: list[str]) -> None:
    """Fail if a requirement is none, or names an extra that this package does not have."""
    from packaging.requirements import Requirement

    options = {"-c", "constraints.txt", "--dev"}
    for argument in arguments:
        if argument in options or argument.startswith(".["):
            continue
        requirement = Requirement(argument)
        provided = importlib.metadata.metadata("octogen-dagster").get_all("Provides-Extra") or []
        if requirement.name == "octogen-dagster":
            assert requirement.extras <= set(provided), f"There is no such extra: {argument}"


if __name__ == "__main__":
    main(Path(sys.argv[0]).name, sys.argv[1:])
