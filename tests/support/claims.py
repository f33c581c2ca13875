"""Claims as ``stoker.jobs`` would hand them out, for tests that need no database."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from stoker.jobs import Claim


def a_claim(*, run_timeout_s: float = 600, stall_timeout_s: float | None = None) -> Claim:
    now = datetime.now(UTC)
    return Claim(
        job_id=uuid4(),
        attempt=1,
        tenant_id=uuid4(),
        app="tests/echo",
        version_id=uuid4(),
        endpoint="/",
        kind="inference",
        uses_gpus=True,
        input={},
        seq=2,
        run_timeout_s=run_timeout_s,
        stall_timeout_s=stall_timeout_s,
        max_attempts=1,
        created_at=now,
        available_at=now,
    )
