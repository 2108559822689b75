"""The types agree with the OpenAPI document."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Sequence
from typing import Any

import pytest
from documents import REPOSITORY

import annals_client
from annals_client import (
    AggregateState,
    AppendResult,
    Claim,
    ClaimRetry,
    Event,
    Filter,
    NewEvent,
    Problem,
    Projection,
    RecordedEvent,
    StreamAppend,
)

DOCUMENT = json.loads((REPOSITORY / "openapi/openapi.json").read_text("utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", type(None): "null"}
JSON_TYPES |= {Sequence: "array", typing.Literal: "string"}


def types_of_schema(schema: dict[str, Any]) -> set[str] | None:
    """Returns the JSON types that a schema allows; None: any."""
    if "$ref" in schema:
        return types_of_schema(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "oneOf" in schema:
        return set().union(*(types_of_schema(one) or set() for one in schema["oneOf"]))
    if "type" not in schema:
        return None
    return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])


def properties_of(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return properties_of(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    parts = [properties_of(part) for part in schema.get("allOf", [])]
    return {name: member for part in [*parts, schema.get("properties", {})] for name, member in part.items()}


def types_of_hint(hint: Any) -> set[str] | None:
    if hint is Any:
        return None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return set().union(*(types_of_hint(one) or set() for one in typing.get_args(hint)))
    return {JSON_TYPES.get(typing.get_origin(hint) or hint, "object")}


#: The names of types that have another name in the document.
NAMES = {"StreamAppend": "MultiAppendItem"}


@pytest.mark.parametrize(
    "kind",
    [Event, NewEvent, RecordedEvent, AppendResult, AggregateState, Projection, StreamAppend, Claim, ClaimRetry],
)
def test_a_type_has_the_members_of_its_schema(kind: Any) -> None:
    schema = SCHEMAS[NAMES.get(kind.__name__, kind.__name__)]
    hints = typing.get_type_hints(kind)
    properties = properties_of(schema)
    assert set(hints) == set(properties)
    for name, hint in hints.items():
        assert types_of_hint(hint) == types_of_schema(properties[name]), name
    if kind in (NewEvent, StreamAppend):
        assert kind.__required_keys__ == set(schema["required"])


def test_a_filter_has_the_parameters_of_the_log() -> None:
    parameters = {parameter["name"] for parameter in DOCUMENT["paths"]["/events"]["get"]["parameters"]}
    reading = {"after", "limit", "wait", "min_position", "lastEventId", "direction", "before"}
    # `partition` is part of the contract, and not of every service.
    ignored = reading | {"partition"} | {name for name in parameters if name[0].isupper()}
    assert Filter.__optional_keys__ - ignored == parameters - ignored


def test_the_classes_of_problems_have_codes_of_the_list() -> None:
    pages = {page.stem for page in (REPOSITORY / "docs/reference/errors").glob("*.md")}
    assert set(Problem.codes) <= pages
    for code, kind in Problem.codes.items():
        assert kind.__name__ == "".join(word.capitalize() for word in code.split("_"))
        assert getattr(annals_client, kind.__name__) is kind
        schema = SCHEMAS.get(kind.__name__, {"properties": {}})
        own = {name for name, member in vars(kind).items() if isinstance(member, property)}
        assert own - {"conflicts"} <= set(schema["properties"])
