"""What the node's tests share."""

from __future__ import annotations

import pytest

from stoker.local.engines import Engines


@pytest.fixture
def redis_url(engines: Engines) -> str:
    return engines.redis_url
