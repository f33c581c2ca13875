"""Jobs that have ended, with a secret wherever a job keeps what its caller and its app have said."""

from __future__ import annotations

from uuid import UUID

from stoker import jobs
from stoker.events import EventKind
from stoker.ids import new_id
from stoker.job_values import Claim, Output, Submitted, Succeeded
from tests.support.job_world import Node, World

HOUR = 3600.0
SECRET = {"prompt": "a secret"}


def output(job_id: UUID, tenant_id: UUID) -> Output:
    key = f"{tenant_id}/{job_id}/1/0-cat.png"
    about = {"said": "a secret"}
    return Output(new_id(), "cat.png", "/image", key, "image/png", 3, "0" * 64, job_id.hex * 2, about)


async def done(world: World, node: Node, **wishes: object) -> Submitted:
    """A job with a result that names one output."""
    job = await world.submit(input=SECRET, **wishes)
    claim = await node.take()
    made = {"name": "cat.png", "url": "/outputs/", "attempt": 1, "said": "a secret"}
    await jobs.append_events(world.db, claim.lease, [(EventKind.LOG, {"message": "half done"})])
    await jobs.append_events(world.db, claim.lease, [(EventKind.OUTPUT, made)])
    await node.renew(claim, progress={claim.job_id: {"seen": "a secret"}})
    await succeed(node, claim)
    return job


async def succeed(node: Node, claim: Claim) -> None:
    stored = output(claim.job_id, claim.tenant_id)
    result = {"said": "a secret", "image": {"url": f"/outputs/{stored.token}/cat.png"}}
    assert (await node.finish(claim, Succeeded(result, (stored,)))).applied
