"""Write the pages of `docs/reference/` that come from the code, and the list of guides.

uv run python -m tests.docs.generate
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import click

from octogen_dagster.components import OctogenComponent, OctogenLinkedDatasetsComponent
from tests.commands import COMMANDS
from tests.docs.blocks import GUIDE_OF, ROOT

FOLDER = ROOT / "docs" / "reference"
YAML = """\
# YAML reference

Look up the fields in a `defs.yaml`, with their types and defaults. For the file's structure, see
[YAML](../yaml.md). Each value can also be a [template](../yaml.md#environment-variables).
"""
COMMAND_LINE = """\
# Commands

Look up the commands and their options. `--help` also lists a command's options.

All commands use these exit statuses:

| exit status | meaning |
| --- | --- |
| 0 | success, or a dry run |
| 1 | failure; for `doctor`, also if a check is blocked or you do not confirm |
| 2 | invalid options or arguments |
| 3 | `bq subscribe`: Octogen has not granted access yet; try again in a few minutes |

The script `octogen-bq-subscribe` runs `octogen-dagster bq subscribe`, and the script
`octogen-bq-autosubscribe` runs `octogen-dagster bq autosubscribe`. If `octogen-ai-sdk` is
[also installed](../coming-from.md#scripts-with-the-same-name), use the `octogen-dagster` commands.
"""
TRANSLATION = "[translation](../yaml.md#owners-tags-groups)"
TYPES = {"boolean": "`true` or `false`", "object": "mapping", "null": "`null`"}
FIELDS = ("field", "type", "default", "meaning")


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    return {"cli.md": _commands(), "yaml.md": _components(), "../tables.md": _tables()}


def _tables() -> str:
    """Return `docs/tables.md` with a row for each guide."""
    rows: list[tuple[str, ...]] = []
    for page in dict.fromkeys(GUIDE_OF.values()):
        guide = (ROOT / page).read_text()
        (title,) = re.findall(r"^# Load catalogs into (.+)", guide)
        kinds = ", ".join(f"`{kind}`" for kind in GUIDE_OF if GUIDE_OF[kind] == page)
        rows.append((kinds, f"[{title}]({PurePath(page).name})"))
    table = "\n".join(_table(("`destination`", "guide"), rows))
    text = (ROOT / "docs/tables.md").read_text()
    return re.sub(r"\| `destination` .*?(?=\n\n)", lambda _: table, text, flags=re.DOTALL)


def _components() -> str:
    sections: dict[str, str] = {}
    for component in (OctogenComponent, OctogenLinkedDatasetsComponent):
        schema = component.model().model_json_schema()
        _add_section(sections, component.__name__, schema, schema["$defs"])
    return "\n".join([YAML, *sections.values()])


def _add_section(
    sections: dict[str, str], name: str, part: Mapping[str, Any], defs: Mapping[str, Any]
) -> None:
    """Add the section for a mapping, then one for each mapping below it."""
    required = part.get("required", ())
    rows: list[tuple[str, ...]] = [
        (f"`{field}`", _type(each), _default(each, field in required), _meaning(each))
        for field, each in part["properties"].items()
    ]
    intro = part.get("description", "").partition("\n\n")[0]
    sections[name] = "\n".join([f"## {name}\n", _text(intro), "", *_table(FIELDS, rows), ""])
    for field, each in part["properties"].items():
        if field == "alerts":
            sections["AlertRule"] = _alert_rules(each["else"]["items"]["allOf"][1:])
        for below in re.findall(r'"#/\$defs/(\w+)"', json.dumps(each)):
            # Every other mapping is from Dagster.
            if below not in sections and not below.endswith("Model"):
                _add_section(sections, below, defs[below], defs)


def _alert_rules(branches: list[dict[str, Any]]) -> str:
    """Return the section for alert rules: the shared fields, then the fields of each kind."""
    rules = [(each["if"]["properties"]["kind"]["const"], each["then"]) for each in branches]
    shared = set.intersection(*({*rule["properties"]} for _, rule in rules))
    fields: list[tuple[str, ...]] = []
    kinds: list[tuple[str, ...]] = []
    for kind, rule in rules:
        required = rule["required"]
        event = rule["description"].partition("\n\n")[0]
        kinds.append((f"`{kind}`", "", "", "", _text(event)))
        for field, each in rule["properties"].items():
            row = (f"`{field}`", _type(each), _default(each, field in required), _meaning(each))
            if field not in shared:
                kinds.append(("", *row))
            elif row not in fields:
                fields.append(row)
    return "\n".join(
        [
            "## AlertRule\n",
            "Fields shared by all alert rules:",
            "",
            *_table(FIELDS, fields),
            "",
            "Additional fields for each `kind`:",
            "",
            *_table(("kind", *FIELDS), kinds),
            "",
        ]
    )


def _type(field: Mapping[str, Any]) -> str:
    """Return the type of a field, whose value can also be a template."""
    value = field.get("else", field)
    if reference := value.get("$ref"):
        name = reference.rpartition("/")[2]
        return TRANSLATION if name.endswith("Model") else f"[{name}](#{name.lower()})"
    if "allOf" in value and "properties" in value:
        return "[AlertRule](#alertrule)"
    kind = value.get("type")
    if isinstance(kind, list):
        branches = {rule["if"]["type"]: rule["then"] for rule in value.get("allOf", ())}
        return " or ".join(_type(branches.get(each, {"type": each})) for each in kind)
    if choices := value.get("enum", [value["const"]] if "const" in value else None):
        return " or ".join(f"`{each}`" for each in choices)
    if kind == "array":
        return f"list of {_type(value['items'])}"
    if isinstance(values := value.get("additionalProperties"), Mapping):
        return f"mapping from string to {_type(values)}"
    return str(value.get("format") or TYPES.get(kind, kind))


def _default(field: Mapping[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    default = field.get("default")
    if default in (None, ""):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _meaning(field: Mapping[str, Any]) -> str:
    return _text(field.get("description", ""))


def _commands() -> str:
    sections = [COMMAND_LINE]
    for words, command in COMMANDS.items():
        rows = [_option(each) for each in command.params if isinstance(each, click.Option)]
        arguments = [each.make_metavar(click.Context(command)) for each in _arguments(command)]
        paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        sections.append(
            "\n".join(
                [
                    f"## octogen-dagster {' '.join([*words, *arguments])}\n",
                    "\n\n".join(_text(each) for each in paragraphs),
                    "",
                    *_table(("option", "default", "variable", "meaning"), rows),
                ]
            )
        )
    return "\n".join(f"{section.rstrip()}\n" for section in sections)


def _arguments(command: click.Command) -> Iterator[click.Argument]:
    return (each for each in command.params if isinstance(each, click.Argument))


def _option(option: click.Option) -> tuple[str, ...]:
    names = " / ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    default = option.default
    is_shown = isinstance(default, str | int | float | tuple | PurePath) and default is not True
    value = f"`{default}`" if is_shown and default is not False else ""
    variable = f"`{option.envvar}`" if option.envvar else ""
    return names, "required" if option.required else value, variable, _text(option.help or "")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for row in (head, ("---",) * len(head), *rows):
        yield re.sub(" +", " ", f"| {' | '.join(row)} |")


def _text(text: str) -> str:
    """Return one line of Markdown, with characters that Markdown or a table would read escaped."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("|", "\\|"))
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*")
        for part in parts
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text.rstrip() + "\n")
