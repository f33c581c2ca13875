"""How ``-i`` spells an input."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.cli.inputs import parse_inputs
from stoker.errors import InvalidRequest


def no_upload(path: Path) -> str:
    raise AssertionError(f"{path} must not be uploaded")


def test_text_stays_text_even_where_it_looks_like_a_number():
    assert parse_inputs(["prompt=a red circle", "code=007", "note=a=b"], no_upload) == {
        "prompt": "a red circle",
        "code": "007",
        "note": "a=b",
    }


def test_a_colon_before_the_equals_sign_means_json():
    assert parse_inputs(["steps:=4", "sizes:=[1, 2]", "on:=true", "none:=null"], no_upload) == {
        "steps": 4,
        "sizes": [1, 2],
        "on": True,
        "none": None,
    }


def test_a_file_is_uploaded_and_its_id_stands_for_it(tmp_path: Path):
    picture = tmp_path / "f.png"
    picture.write_bytes(b"png")
    uploaded = []

    def upload(path: Path) -> str:
        uploaded.append(path)
        return "file_1"

    assert parse_inputs([f"image=@{picture}"], upload) == {"image": "file_1"}
    assert uploaded == [picture]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prompt"], "is not name=value"),
        (["=text"], "is not name=value"),
        (["steps:=four"], "is not JSON"),
        (["image=@no/such/file.png"], "where no file is"),
        (["a=1", "a=2"], "given twice"),
    ],
)
def test_a_wrong_spelling_is_refused_with_the_right_ones(arguments: list[str], says: str):
    with pytest.raises(InvalidRequest, match=says) as refused:
        parse_inputs(arguments, no_upload)

    assert "-i" in refused.value.hint
