"""Numbers that can't be are refused, for every key of the schema that takes a number: key, value, expectation."""

import math
import re

import pytest

from calotype.config import Config
from calotype.errors import ConfigError

UNBOUNDED = {"dataset.seed", "dataset.validation_seed", "loader.seed"}
"""Any whole number is a seed."""


def numeric(schema, above=""):
    """(key, the schemas of its values, the schema of a list's items) of each option that takes numbers."""
    definitions = schema["$defs"]

    def alternatives(value):
        if "$ref" in value:
            return alternatives(definitions[value["$ref"].rpartition("/")[2]])
        for word in ("anyOf", "oneOf"):
            if word in value:
                return [found for one in value[word] for found in alternatives(one)]
        return [value]

    def walk(properties, above):
        for name, value in properties.items():
            found = alternatives(value)
            if any(one.get("type") in ("integer", "number") for one in (*found, *(o.get("items", {}) for o in found))):
                yield f"{above}{name}", found
            for one in found:
                if "_component_" not in one.get("properties", {}):
                    yield from walk(one.get("properties", {}), f"{above}{name}.")

    return list(walk(schema["properties"], above))


def wrong_numbers(one):
    if one.get("type") not in ("integer", "number"):
        return
    if "minimum" in one:
        yield one["minimum"] - 1
    if "exclusiveMinimum" in one:
        yield one["exclusiveMinimum"]
    if "maximum" in one:
        yield one["maximum"] + 1
    if "exclusiveMaximum" in one:
        yield one["exclusiveMaximum"]
    yield from (math.nan, math.inf, -math.inf)
    if one["type"] == "integer":
        yield 1.5


def wrong_values(found):
    for one in found:
        yield from wrong_numbers(one)
        if one.get("type") == "array":
            yield from ([number] * one.get("minItems", 1) for number in wrong_numbers(one["items"]))
    types = {one.get("type") for one in found} | {"string" for one in found if "enum" in one}
    if "boolean" not in types:
        yield True
    if "string" not in types:
        yield "3"


KEYS = numeric(Config.model_json_schema())


@pytest.mark.parametrize(("key", "found"), KEYS, ids=[key for key, _ in KEYS])
def test_a_number_that_can_not_be_is_refused(key, found):
    *sections, name = key.split(".")
    numbers = [one for each in found for one in (each, each.get("items", {}))]
    bounded = any({"minimum", "exclusiveMinimum"} & set(one) for one in numbers)
    assert bounded is (key not in UNBOUNDED), "the schema has a lower bound for every number but a seed"
    for value in wrong_values(found):
        config = inner = {"dataset": {"path": "p"}, "distill": {"student": "hub/any"}}
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
        if key.startswith("dataset.downloads."):
            inner["directory"] = "kept"
        message = rf"^{re.escape(key)}: found {re.escape(repr(value))}, expected \S"
        with pytest.raises(ConfigError, match=message):
            Config.parse(config)


def test_the_schema_has_numbers_in_every_section():
    assert len(KEYS) > 60
    assert {key.partition(".")[0] for key, _ in KEYS} == {"dataset", "loader", "encodings", "train", "distill"}
