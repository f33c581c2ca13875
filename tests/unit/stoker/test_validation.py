"""An input against its schema: places, kinds and messages."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stoker.errors import AppDefinitionError, InvalidInput
from stoker.files import File
from stoker.validation import MAX_ERRORS, validate


class Box(BaseModel):
    width: int


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=20, pattern="^[^!]*$")
    steps: int = Field(default=4, ge=1, le=100)
    scale: float = Field(default=1.0, gt=0, lt=30)
    seed: int | None = None
    style: Literal["ink", "oil"] = "ink"
    boxes: list[Box] = Field(default=[], min_length=0, max_length=2)
    extra: Box | None = None
    sizes: dict[str, Annotated[int, Field(ge=0)]] = {}


SCHEMA = Request.model_json_schema()

GOOD: list[dict[str, Any]] = [
    {"prompt": "a"},
    {"prompt": "a", "steps": 100, "scale": 29.9, "seed": None, "style": "oil"},
    {"prompt": "a", "boxes": [{"width": 1}, {"width": 2}], "extra": {"width": 1}, "sizes": {"x": 0}},
]
BAD: list[tuple[dict[str, Any], list[tuple[list[Any], str]]]] = [
    ({}, [(["prompt"], "missing")]),
    ({"prompt": ""}, [(["prompt"], "string_too_short")]),
    ({"prompt": "a" * 21}, [(["prompt"], "string_too_long")]),
    ({"prompt": "!"}, [(["prompt"], "string_pattern_mismatch")]),
    ({"prompt": 1}, [(["prompt"], "string_type")]),
    ({"prompt": "a", "steps": 0}, [(["steps"], "greater_than_equal")]),
    ({"prompt": "a", "steps": 101}, [(["steps"], "less_than_equal")]),
    ({"prompt": "a", "scale": 0}, [(["scale"], "greater_than")]),
    ({"prompt": "a", "scale": 30}, [(["scale"], "less_than")]),
    ({"prompt": "a", "seed": "x"}, [(["seed"], "integer_type")]),
    ({"prompt": "a", "style": "pen"}, [(["style"], "enum")]),
    ({"prompt": "a", "boxes": [{"width": 1}] * 3}, [(["boxes"], "too_long")]),
    ({"prompt": "a", "boxes": [{"width": 1}, {"width": "x"}]}, [(["boxes", 1, "width"], "integer_type")]),
    ({"prompt": "a", "extra": {}}, [(["extra", "width"], "missing")]),
    ({"prompt": "a", "colour": 1}, [(["colour"], "extra_forbidden")]),
    ({"prompt": "a", "sizes": {"x": -1}}, [(["sizes", "x"], "greater_than_equal")]),
    ({"steps": "x", "seed": True}, [(["prompt"], "missing"), (["seed"], "integer_type"), (["steps"], "integer_type")]),
]


@pytest.mark.parametrize("value", GOOD)
def test_what_pydantic_accepts_is_accepted(value: dict[str, Any]) -> None:
    Request.model_validate(value, strict=True)

    validate(SCHEMA, value)


@pytest.mark.parametrize(("value", "expected"), BAD)
def test_what_pydantic_refuses_is_refused_at_the_same_places(
    value: dict[str, Any], expected: list[tuple[list[Any], str]]
) -> None:
    with pytest.raises(ValidationError) as theirs:
        Request.model_validate(value, strict=True)

    with pytest.raises(InvalidInput) as ours:
        validate(SCHEMA, value)

    found = sorted((entry["loc"], entry["type"]) for entry in ours.value.errors)
    assert found == expected
    assert sorted(list(entry["loc"]) for entry in theirs.value.errors()) == [loc for loc, _ in expected]


def test_a_message_never_holds_the_value() -> None:
    with pytest.raises(InvalidInput) as raised:
        validate(SCHEMA, {"prompt": "secret" * 100_000, "style": "secret", "steps": "secret"})

    assert "secret" not in str(raised.value) + str(raised.value.errors)


def test_a_file_may_be_a_string_or_an_object() -> None:
    class WithFile(BaseModel):
        image: File

    schema = WithFile.model_json_schema()

    validate(schema, {"image": {"url": "file_1"}})
    with pytest.raises(InvalidInput):
        validate(schema, {"image": 7})


def test_the_list_of_errors_is_bounded() -> None:
    with pytest.raises(InvalidInput) as raised:
        validate(SCHEMA, {f"x{number}": 1 for number in range(1000)})

    assert len(raised.value.errors) == MAX_ERRORS
    assert f"more than {MAX_ERRORS} places" in str(raised.value)


def test_an_input_that_is_nested_without_end_is_refused() -> None:
    schema = {"$ref": "#/$defs/Tree", "$defs": {"Tree": {"properties": {"next": {"$ref": "#/$defs/Tree"}}}}}
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"next": value}

    with pytest.raises(InvalidInput):
        validate(schema, value)


def test_a_schema_that_is_none_is_the_apps_fault() -> None:
    with pytest.raises(AppDefinitionError):
        validate({"type": "wrong"}, {})


def test_what_is_wrong_everywhere_is_not_looked_at_to_its_end() -> None:
    class Counted(dict[str, Any]):
        read = 0

        def __getitem__(self, name: str) -> Any:
            Counted.read += 1
            return super().__getitem__(name)

        def items(self) -> Any:
            for name in self:
                yield name, self[name]

    value = {"prompt": "a", "sizes": Counted((f"n{number}", -1) for number in range(10_000))}

    with pytest.raises(InvalidInput, match=f"more than {MAX_ERRORS} places") as caught:
        validate(SCHEMA, value)

    assert len(caught.value.errors) == MAX_ERRORS
    assert Counted.read <= 2 * MAX_ERRORS
