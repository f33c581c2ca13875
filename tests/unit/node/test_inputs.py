"""Links of an input that name nothing at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.database import make_engine
from stoker.errors import InvalidFile
from stoker.storage import Storage
from tests.unit.node.test_attempts import a_claim
from worker_node.inputs import Inputs

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", ["https://[", "https://[::1/x", "https://a..b/x", "gopher://x/", "x", ""])
async def test_a_link_that_is_none_is_an_invalid_file(url: str, tmp_path: Path) -> None:
    db = make_engine("postgresql://nobody@127.0.0.1:1/nothing", application_name="test")
    storage = Storage("http://127.0.0.1:1", "x", "x", "x", "x")
    inputs = Inputs(db, storage, a_claim(), tmp_path, allowed_hosts=frozenset())

    with pytest.raises(InvalidFile):
        await inputs.fetch(url)
