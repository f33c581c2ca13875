"""Validation of a job's input against its app's JSON Schema.

For the API, before anything is stored, and for child jobs. The app host validates again with the app's own models and
applies their defaults. Messages never repeat the value: it may be large or private.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from stoker.errors import AppDefinitionError, InvalidInput

MAX_ERRORS = 50

# The names that pydantic gives the same mistakes, so that clients see one vocabulary.
TYPE_OF = {
    "required": "missing",
    "additionalProperties": "extra_forbidden",
    "minLength": "string_too_short",
    "maxLength": "string_too_long",
    "pattern": "string_pattern_mismatch",
    "minimum": "greater_than_equal",
    "exclusiveMinimum": "greater_than",
    "maximum": "less_than_equal",
    "exclusiveMaximum": "less_than",
    "multipleOf": "multiple_of",
    "enum": "enum",
    "const": "literal_error",
    "minItems": "too_short",
    "maxItems": "too_long",
}
MESSAGES = {
    "required": "Field required",
    "additionalProperties": "Extra inputs are not permitted",
    "minLength": "String should have at least {limit} characters",
    "maxLength": "String should have at most {limit} characters",
    "pattern": "String should match pattern '{limit}'",
    "minimum": "Input should be greater than or equal to {limit}",
    "exclusiveMinimum": "Input should be greater than {limit}",
    "maximum": "Input should be less than or equal to {limit}",
    "exclusiveMaximum": "Input should be less than {limit}",
    "multipleOf": "Input should be a multiple of {limit}",
    "enum": "Input should be one of {limit}",
    "const": "Input should be {limit}",
    "minItems": "List should have at least {limit} items",
    "maxItems": "List should have at most {limit} items",
    "type": "Input should be of type {limit}",
}


def validate(schema: Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Check ``value``. It stops looking when there is more wrong than it tells.

    Raises:
        InvalidInput: it breaks the schema; ``errors`` has one ``{loc, msg, type}`` a place; ``loc`` begins at its root.
        AppDefinitionError: the schema itself is not one.
    """
    validator = _validator(json.dumps(schema, sort_keys=True))
    try:
        found = (entry for error in validator.iter_errors(value) for entry in _describe(error))
        errors = list(islice(found, MAX_ERRORS + 1))
    except RecursionError as error:
        entry = {"loc": [], "msg": "Input is nested too deeply", "type": "recursion_loop"}
        raise InvalidInput("the input is nested too deeply", errors=[entry]) from error
    if errors:
        places = "1 place" if len(errors) == 1 else f"{len(errors)} places"
        if len(errors) > MAX_ERRORS:
            places = f"more than {MAX_ERRORS} places"
        raise InvalidInput(f"the input breaks the app's schema in {places}", errors=errors[:MAX_ERRORS])


@functools.lru_cache(maxsize=256)
def _validator(schema_json: str) -> Draft202012Validator:
    schema = json.loads(schema_json)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise AppDefinitionError(f"the app's input schema is not a JSON Schema: {error.message[:200]}") from error
    return Draft202012Validator(schema)


def _describe(error: ValidationError) -> Iterator[dict[str, Any]]:
    if error.validator in ("anyOf", "oneOf") and error.context:
        yield from _describe(_nearest_branch(error))
        return
    loc, keyword = list(error.absolute_path), str(error.validator)
    limit: Any = error.validator_value
    if keyword == "required":
        # jsonschema reports each missing name as an error of its own whose message begins with that name.
        missing = [name for name in limit if error.message.startswith(repr(name))]
        yield from (_entry([*loc, name], keyword, limit) for name in missing)
    elif keyword == "additionalProperties":
        known = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
        instance: Any = error.instance
        extra = [name for name in instance if name not in known]
        yield from (_entry([*loc, name[:100]], keyword, limit) for name in extra)
    else:
        yield _entry(loc, keyword, limit)


def _nearest_branch(error: ValidationError) -> ValidationError:
    """The mistake in the alternative that was most likely meant: never 'should be null' if there is another."""
    meant = [inner for inner in error.context or () if inner.validator_value != "null"]
    found = best_match(iter(meant or error.context or ()))
    return found if found is not None else error


def _entry(loc: list[Any], keyword: str, limit: Any) -> dict[str, Any]:
    kind = f"{limit}_type" if keyword == "type" and isinstance(limit, str) else TYPE_OF.get(keyword, keyword)
    message = MESSAGES.get(keyword, "Input breaks the rule '{keyword}'")
    return {"loc": loc, "msg": message.format(limit=str(limit)[:200], keyword=keyword), "type": kind}
