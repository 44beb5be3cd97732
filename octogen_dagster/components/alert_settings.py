"""Settings for alert rules in YAML, with fields generated from the rule classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationInfo,
    create_model,
)

from octogen_dagster.alerts.rules import KINDS, AlertRule
from octogen_dagster.components.yaml_model import Duration, YamlModel, class_by_path
from octogen_dagster.validation import did_you_mean

if TYPE_CHECKING:
    import polars as pl


def _class_of(kind: object, info: ValidationInfo) -> Any:
    """Return the rule class for a kind or a dotted path in the project."""
    if "." not in str(kind):
        if str(kind) in KINDS:
            return KINDS[str(kind)]
        raise ValueError(
            f"is not a kind of alert rule.{did_you_mean(str(kind), KINDS)} Choose one of "
            f"{', '.join(KINDS)}, or write the dotted path of your own rule class"
        )
    return class_by_path(str(kind), AlertRule, info, "my_shops.rules.EndsIn99")


class AlertSettings(YamlModel):
    """Fields shared by all alert rules."""

    kind: Annotated[type[AlertRule], PlainValidator(_class_of, json_schema_input_type=str)]
    """The event to report: a built-in rule, or the dotted path of your own rule class."""
    name: str = ""
    """The rule's name in the alerts table and in the name of its check. Defaults to `kind`."""
    where: str | None = None
    """The products to which the rule applies, as an SQL condition such as `brand.name = 'Acme'`."""
    days: int = 30
    """Number of past days that a new rule searches for events.

    The `lowest` and `median` prices cover the same number of days.
    """
    again_after: Duration | None = None
    """Cool-down after an event, such as `7d`.

    During this time, the product is reported again only if its price moves further.
    """
    max_products: int = 0
    """Maximum number of matching products in a snapshot. The check warns if more products match."""
    max_percent: float | None = None
    """Maximum percentage of all products that can match.

    If `max_percent` is set, the check warns only if both `max_percent` and `max_products` are
    exceeded.
    """

    def rule(self) -> AlertRule:
        """Build the rule from the fields."""
        written = {name: getattr(self, name) for name in self.model_fields_set - {"kind"}}
        if self.where is not None:
            written["where"] = _condition(self.where)
        return self.kind(**written)


def _settings_of(rule: type[AlertRule]) -> type[AlertSettings]:
    """Build the settings model for a rule class from the shared fields and the class's fields."""
    types = {
        name: annotation
        for base in reversed(rule.__mro__[: rule.__mro__.index(AlertRule)])
        for name, annotation in inspect.get_annotations(base, eval_str=True).items()
    }
    words = dict(re.findall(r"^ +(\w+): (.+(?:\n {5,}.+)*)", inspect.getdoc(rule) or "", re.M))
    added: dict[str, Any] = {
        each.name: (
            types[each.name],
            Field(
                default=... if each.default is MISSING else each.default,
                description=" ".join(words.get(each.name, "").split()) or None,
            ),
        )
        for each in fields(rule)
        if each.name not in AlertSettings.model_fields
    }
    return create_model(rule.__name__, __base__=AlertSettings, __doc__=rule.__doc__, **added)


def _rule(value: Any, info: ValidationInfo) -> AlertRule:
    """Return the rule defined by a YAML mapping or a template variable."""
    if isinstance(value, AlertRule):
        return value
    kind = {"kind": value.get("kind")} if isinstance(value, Mapping) else value
    rule = AlertSettings.model_validate(kind, context=info.context).kind
    return _settings_of(rule).model_validate(value, context=info.context).rule()


class _RuleSchema:
    """The JSON schema of a rule.

    The rule's kind determines the allowed fields, but your own rules accept any fields.
    """

    @staticmethod
    def __get_pydantic_json_schema__(_: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        kind = {"type": "string", "description": AlertSettings.model_fields["kind"].description}
        kinds = {"if": {"pattern": r"^[^.]*$"}, "then": {"enum": [*KINDS]}}
        fields_of = [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": each.kind}}},
                "then": handler(_settings_of(each).__pydantic_core_schema__),
            }
            for each in KINDS.values()
        ]
        return {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": kind},
            "allOf": [{"properties": {"kind": kinds}}, *fields_of],
        }


Rule = Annotated[Any, PlainValidator(_rule), _RuleSchema]


def _condition(where: str) -> pl.Expr:
    """Parse an SQL condition on columns in the products table or the history."""
    import polars as pl

    from octogen_dagster.schemas import HISTORY_SCHEMA, PRODUCT_SCHEMA

    try:
        condition = pl.sql_expr(where)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"where is not an SQL condition: {error}") from None
    columns = {**PRODUCT_SCHEMA, **HISTORY_SCHEMA}
    if unknown := sorted({*condition.meta.root_names()} - {*columns}):
        raise ValueError(
            f"where uses the unknown column {unknown[0]}. Use a column from the products table or "
            f"the history.{did_you_mean(unknown[0], columns)}"
        )
    try:
        (kind,) = pl.LazyFrame(schema=columns).select(condition).collect_schema().dtypes()
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"where cannot be applied to the product columns: {reason}") from None
    if kind != pl.Boolean:
        raise ValueError(
            f"where is a {kind}, not a condition. Add a comparison with = or another operator"
        )
    return condition
