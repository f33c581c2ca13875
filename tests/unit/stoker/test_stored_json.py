"""JSON as Postgres takes it."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given

from stoker.depth import MAX_DEPTH, is_too_deep
from stoker.errors import InvalidRequest
from stoker.stored_json import as_given, as_possible, loaded
from tests.support.json_values import values


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


@given(values)
def test_what_is_stored_can_be_shown_to_callers(value: object) -> None:
    shown = loaded(as_possible(value).obj)

    assert orjson.loads(orjson.dumps(shown)) == shown


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("10000000000000000000000000", 1e25),
        ("-10000000000000000000000000", -1e25),
        ("1" + 400 * "0", None),
        ("1" + 400 * "0" + ".5", None),
        ("[1" + 400 * "0" + ", 12, 0.5, -3]", [None, 12, 0.5, -3]),
    ],
)
def test_a_number_that_others_cannot_read_is_read_as_a_float_or_as_nothing(stored: str, read: object) -> None:
    assert repr(loaded(stored)) == repr(read)


@pytest.mark.parametrize("digits", [300, 400, 5000])
def test_a_number_of_any_length_does_not_keep_a_job_from_ending(digits: int) -> None:
    shown = loaded(as_possible({"seeds": [-(10**digits), "ten"]}).obj)

    assert shown == {"seeds": [-1e300 if digits == 300 else None, "ten"]}


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
