"""Scaffolders for `dg scaffold defs`.

They write a first YAML file for a component and add variables to `.env`.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import click
import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from dagster.components.scaffold.scaffold import ScaffoldRequest
from dotenv import dotenv_values, set_key
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from octogen_dagster.api.credentials import BASE_URL_VARIABLE, KEY_VARIABLE
from octogen_dagster.sandbox import DEFAULT_API_KEY, DEFAULT_BASE_URL
from octogen_dagster.sandbox.words import SHOPS

_SOURCES = ("sandbox", "hosts", "keys", "granted")
_SANDBOX = {KEY_VARIABLE: DEFAULT_API_KEY, BASE_URL_VARIABLE: DEFAULT_BASE_URL}
_SANDBOX_HOSTS = [shop.domain for shop in SHOPS]
_SANDBOX_QUERY = "boots"


def _check_text(value: list[str] | str | None) -> list[str] | str | None:
    for text in [value] if isinstance(value, str) else value or ():
        if not text.strip():
            raise ValueError("a value is empty. Write a value, or omit the option")
        if not text.isprintable():
            raise ValueError(f"{text!r} contains unprintable characters. Remove them")
    return value


class ScaffoldParams(BaseModel):
    """Parameters for scaffolding a search deployment."""

    model_config = ConfigDict(extra="forbid")

    sandbox: bool = Field(
        default=False, description="Read from a local sandbox, without an API key."
    )
    hosts: list[str] = Field(default=[], description="Shop hosts, such as acme.com.")
    keys: list[str] = Field(default=[], description="Catalog keys.")
    granted: bool = Field(default=False, description="Read all catalogs granted to the API key.")
    query: str | None = Field(default=None, description="Keywords for a first search.")
    base_dir: str = Field(
        default="snapshots", min_length=1, description="Folder or bucket for snapshots."
    )

    _check_text = field_validator("hosts", "keys", "query", "base_dir")(_check_text)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(chosen := [name for name in _SOURCES if getattr(self, name)]) > 1:
            options = " and ".join(f"--{name}" for name in chosen)
            raise ValueError(f"{options} cannot be combined. Choose one catalog source")
        return self

    @property
    def has_source(self) -> bool:
        """True if one of the options selects a catalog source."""
        return any(getattr(self, name) for name in _SOURCES)


class OctogenScaffolder(dg.Scaffolder[ScaffoldParams]):
    """Writes a component's YAML file, and adds the file's variables to the project's `.env`."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        """Return the options model."""
        return ScaffoldParams

    def scaffold(self, request: ScaffoldRequest[ScaffoldParams]) -> None:
        """Write `defs.yaml`, and add missing variables to `.env`."""
        params = request.params
        if not params.has_source and _is_interactive():
            try:
                params = _ask(params)
            except click.Abort:
                with contextlib.suppress(OSError):  # the folder has user files
                    request.target_path.rmdir()  # dg rejects an existing folder
                raise
        variables = _SANDBOX if params.sandbox else {}
        attributes = _attributes(params)
        scaffold_component(request, attributes)
        if request.project_root:
            _keep_runs(request.project_root)
            _write_environment(request.project_root / ".env", variables)
        if params.sandbox:
            search = attributes["searches"][-1]["name"]
            _print_next_commands("octogen-dagster sandbox &", f"dg launch --assets {search}")
        else:
            chosen = [f"--host {host}" for host in params.hosts]
            chosen += [f"--catalog {key}" for key in params.keys]
            estimate = " ".join(["octogen-dagster estimate", *chosen])
            _print_next_commands("octogen-dagster doctor", estimate, "dg dev")


class LinkedScaffoldParams(BaseModel):
    """Parameters for scaffolding a linked-datasets deployment."""

    model_config = ConfigDict(extra="forbid")

    project: str = Field(description="Your Google Cloud project.")
    principal: str = Field(
        description="IAM principal that subscribes, such as serviceAccount:me@my-project.…"
    )

    _check_text = field_validator("project", "principal")(_check_text)


class OctogenLinkedDatasetsScaffolder(dg.Scaffolder[LinkedScaffoldParams]):
    """Writes the YAML file for a linked-datasets component."""

    @classmethod
    def get_scaffold_params(cls) -> type[LinkedScaffoldParams]:
        """Return the options model."""
        return LinkedScaffoldParams

    def scaffold(self, request: ScaffoldRequest[LinkedScaffoldParams]) -> None:
        """Write `defs.yaml`."""
        scaffold_component(request, request.params.model_dump())
        _print_next_commands("octogen-dagster login", "octogen-dagster doctor", "dg dev")


def _is_interactive() -> bool:
    """Return True if the command runs in a terminal."""
    return click.get_current_context(silent=True) is not None and sys.stdin.isatty()


def _ask(params: ScaffoldParams) -> ScaffoldParams:
    source = click.prompt(
        "Where do the catalogs come from?", type=click.Choice(_SOURCES), default="sandbox"
    )
    chosen: Any = True
    if source in ("hosts", "keys"):
        text = click.prompt(f"Enter the {source}, separated by commas")
        chosen = [part.strip() for part in text.split(",") if part.strip()]
    return ScaffoldParams.model_validate({**params.model_dump(), source: chosen})


def _attributes(params: ScaffoldParams) -> dict[str, Any]:
    source = {name: getattr(params, name) for name in ("hosts", "keys") if getattr(params, name)}
    if params.sandbox:
        source["hosts"] = _SANDBOX_HOSTS
    searches: list[dict[str, Any]] = [{"name": "octogen_products", "partitions": "catalog"}]
    if query := params.query or (_SANDBOX_QUERY if params.sandbox else None):
        searches.append({"name": _asset_name(query), "search": {"q": query}})
    # The base URL comes from .env; the default is Octogen's.
    attributes: dict[str, Any] = {"connection": {"api_key": f"{{{{ env.{KEY_VARIABLE} }}}}"}}
    if source:
        attributes["catalog_source"] = source
    attributes |= {"storage": {"base_dir": params.base_dir}, "searches": searches}
    return attributes


def _asset_name(query: str) -> str:
    words = re.findall(r"[a-z0-9]+", query.lower())
    name = "_".join(words) or "search"
    return f"{name}_search" if name == "octogen_products" else name


def _print_next_commands(*commands: str) -> None:
    run = "uv run " if "UV" in os.environ else ""  # `uv run` sets it
    click.echo("\n    ".join(["Next:", *(f"{run}{command}" for command in commands)]))


def _write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """Append missing variables to `.env`, and report variables that already have other values.

    A new file can only be read by its owner, because it will contain secrets.
    """
    present = dotenv_values(path, interpolate=False)
    if variables:
        path.touch(mode=0o600)
    for name, value in variables.items():
        if name not in present:
            set_key(path, name, value, quote_mode="never")
    if kept := [
        name for name in variables if present.get(name, variables[name]) != variables[name]
    ]:
        click.echo(f"{path} already sets {' and '.join(kept)} and was not changed. ", nl=False)
        click.echo("The sandbox needs:")
        for name in kept:
            click.echo(f"    {name}={variables[name]}")
    if variables:
        return
    if present.items() & _SANDBOX.items():
        click.echo(
            f"{path} still points to the sandbox. To read from Octogen, remove the line with "
            f"{BASE_URL_VARIABLE}, and write your API key after {KEY_VARIABLE}=."
        )
    elif not (os.environ.get(KEY_VARIABLE) or present.get(KEY_VARIABLE)):
        click.echo(f"Set {KEY_VARIABLE} in the environment or in {path}.")


def _keep_runs(project: Path) -> None:
    """Set DAGSTER_HOME in `.env`, unless the variable is already set.

    Otherwise, Dagster would forget the run when `dg launch` ends. The sensors would start without
    cursors in each `dg dev`, so every catalog would be read and charged again.
    """
    file, home = project / ".env", project / ".dagster_home"
    if "DAGSTER_HOME" in {**os.environ, **dotenv_values(file, interpolate=False)}:
        return
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").touch()
    (home / ".gitignore").write_text("*\n")
    file.touch(mode=0o600)
    set_key(file, "DAGSTER_HOME", str(home.absolute()))
    click.echo(f"Added DAGSTER_HOME to {file}. Dagster now stores its runs in {home}.")
