"""JSON as Postgres takes it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.depth import MAX_DEPTH, is_too_deep
from stoker.errors import InvalidRequest
from stoker.stored_json import as_given, as_possible

texts = st.text(st.characters(codec=None, exclude_categories=()))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_whatever_an_app_makes_becomes_json_that_postgres_takes(value: object) -> None:
    text = as_possible(value).obj

    text.encode()
    assert "\0" not in str(json.loads(text, parse_constant=pytest.fail))


@given(values)
def test_what_is_accepted_from_a_caller_is_stored_unchanged(value: object) -> None:
    try:
        text = as_given(value).obj
    except InvalidRequest:
        assert as_possible(value).obj != json.dumps(value, ensure_ascii=False)
    else:
        assert json.loads(text) == json.loads(json.dumps(value))


@pytest.mark.parametrize("good", [r"\u0000", r"\\u0000", "\\", "😀", "a\tb"])
def test_a_text_that_only_looks_bad_is_left_alone(good: str) -> None:
    assert json.loads(as_given({good: good}).obj) == {good: good}


@pytest.mark.parametrize("bad", ["\0", "\\\0", "x\\\\\0", "\ud800", float("nan"), float("-inf")])
def test_what_postgres_cannot_hold_is_refused_from_a_caller(bad: object) -> None:
    with pytest.raises(InvalidRequest):
        as_given([bad])


def nested(levels: int) -> object:
    value: object = 1
    for number in range(levels):
        value = [value] if number % 2 else {"a": value}
    return value


def test_the_deepest_that_is_accepted() -> None:
    assert not is_too_deep(nested(MAX_DEPTH))
    assert json.loads(as_given(nested(MAX_DEPTH)).obj) == nested(MAX_DEPTH)
    assert is_too_deep(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 300, 990, 2000])
def test_what_is_nested_too_deeply_is_refused_from_a_caller_and_cut_from_an_app(levels: int) -> None:
    with pytest.raises(InvalidRequest):
        as_given(nested(levels))

    assert not is_too_deep(json.loads(as_possible(nested(levels)).obj), MAX_DEPTH + 20)
