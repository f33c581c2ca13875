"""Manifests: their hash and their way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from stoker.errors import UnknownApp
from stoker.manifest import Manifest
from tests.support.job_world import endpoint, manifest


def test_a_manifest_comes_back_from_json_as_it_was() -> None:
    one = manifest("acme/a", endpoint("/"), endpoint("/train", kind="training", start_timeout_s=3.5))

    assert Manifest.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/other"},
        {"kind": "training"},
        {"input_schema": {"type": "array"}},
        {"output_schema": {"type": "array"}},
        {"uses_gpus": False},
    ],
)
def test_what_a_caller_depends_on_changes_the_hash(change: dict[str, object]) -> None:
    assert manifest("a/b", replace(endpoint(), **change)).schema_hash != manifest("a/b", endpoint()).schema_hash
    assert manifest("a/c", endpoint()).schema_hash != manifest("a/b", endpoint()).schema_hash


@pytest.mark.parametrize("change", [{"run_timeout_s": 1.0}, {"max_attempts": 7}, {"summary": "new"}])
def test_texts_and_limits_do_not_change_the_hash(change: dict[str, object]) -> None:
    changed = manifest("a/b", replace(endpoint(), **change), title="new", description="new", num_gpus=8)

    assert changed.schema_hash == manifest("a/b", endpoint()).schema_hash


def test_the_order_of_endpoints_and_of_a_schemas_keys_does_not_matter() -> None:
    first = endpoint("/a", input_schema={"type": "object", "title": "X"})
    same = endpoint("/a", input_schema={"title": "X", "type": "object"})

    assert manifest("a/b", first, endpoint("/b")).schema_hash == manifest("a/b", endpoint("/b"), same).schema_hash


def test_an_endpoint_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownApp) as caught:
        manifest("a/b", endpoint("/one"), endpoint("/two")).endpoint("/three")

    assert "/one, /two" in caught.value.hint
