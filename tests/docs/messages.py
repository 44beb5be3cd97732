"""The messages of the package, as its source has them: errors, warnings and the parts of both.

A message is a text with `…` for each part that is filled in when it is shown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "octogen_dagster"
GAP = "…"
MIN_FIXED_LETTERS = 9
"""A text with fewer letters of its own is a frame for another message."""

_SHOWN = {
    "BadParameter",
    "ClickException",
    "Failure",
    "SystemExit",
    "TypeError",
    "UsageError",
    "ValueError",
    "with_message",
}
"""Callables of others whose first argument a user reads. The package's own errors join them."""
_LOGGED = {"warning", "error"}


@dataclass(frozen=True)
class Message:
    """A text in the source.

    Attributes:
        text: The text, with `…` for what is filled in.
        place: Its file and line.
        shown: True if it is the whole message of an error or of a warning in a log.
    """

    text: str
    place: str
    shown: bool

    def matches(self, quote: str) -> bool:
        """True if the text begins with the fixed parts of a quote, in their order."""
        return bool(re.match(".*?".join(map(re.escape, quote.split(GAP))), self.text))


def package_messages() -> list[Message]:
    """Return every text of the package but the sandbox's and the docstrings."""
    files = {
        path.relative_to(PACKAGE.parent): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
        if "sandbox" not in path.relative_to(PACKAGE).parts
    }
    errors = _SHOWN | _subclasses_of("OctogenError", list(files.values()))
    return [message for path, tree in files.items() for message in messages_of(path, tree, errors)]


def _subclasses_of(name: str, trees: list[ast.Module]) -> set[str]:
    bases = {
        node.name: {_last_name(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {name}
    while grown := {each for each, parents in bases.items() if parents & found} - found:
        found |= grown
    return found


def messages_of(path: Path, tree: ast.Module, errors: set[str]) -> Iterator[Message]:
    """Yield the texts of one file.

    Args:
        path: The file, to name it.
        tree: Its content.
        errors: The names of the callables whose first argument a user reads.
    """
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    shown = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in _shown_arguments(node, errors, assigned)
    }
    ignored = {id(node) for node in _unreadable(tree)}
    for node in ast.walk(tree):
        text = None if id(node) in ignored else _text(node)
        if text and len(re.findall(r"\w", text)) >= MIN_FIXED_LETTERS:
            yield Message(text, f"{path}:{getattr(node, 'lineno', 0)}", id(node) in shown)


def _shown_arguments(
    call: ast.Call, errors: set[str], assigned: dict[str, ast.expr]
) -> Iterator[ast.expr]:
    name = _last_name(call.func)
    initializer = isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
    if call.args and (name in errors or initializer or _logs(call.func)):
        argument = call.args[0]
        yield assigned.get(argument.id, argument) if isinstance(argument, ast.Name) else argument


def _logs(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _LOGGED
        and "log" in ast.unparse(function.value).lower()
    )


def _unreadable(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield docstrings and the parts of longer texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield node.value
        if isinstance(node, ast.JoinedStr | ast.BinOp) and _text(node):
            yield from list(ast.walk(node))[1:]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _normal(re.sub(r"%[srdg]|%\(\w+\)s", GAP, node.value))
    if isinstance(node, ast.JoinedStr):
        parts = (each.value if isinstance(each, ast.Constant) else GAP for each in node.values)
        return _normal("".join(map(str, parts)))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left), _text(node.right)
        if left or right:
            return _normal((left or GAP) + (right or GAP))
    return None


def _normal(text: str) -> str:
    return re.sub(f"{GAP}+", GAP, " ".join(text.split()) if text.strip() else "")


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node).rpartition(".")[2]
