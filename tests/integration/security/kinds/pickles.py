"""Unsafe pickles: bytes that run when they are read, wherever we read something."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis.asyncio
from kombu.exceptions import ContentDisallowed
from kombu.serialization import loads, prepare_accept_content
from msgpack.exceptions import UnpackException

from stoker.queue import WAKE_TASK, make_celery, queue_name
from tests.integration.security.acts import Http, Input, Uploaded
from tests.integration.security.refusals import Download, JobFailed, Problem, Refused
from tests.integration.security.rows import rows
from tests.integration.security.world import World
from worker_node.distributed.errors import SerializationFailed
from worker_node.distributed.wire import decode

BYTES = "application/octet-stream"


class Opens:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.marker),)


PICKLE = pickle.dumps(Opens("/nonexistent/marker"))


@dataclass(frozen=True)
class Rung:
    """A doorbell whose message is a pickle, put into Redis by somebody who can reach it. True: no node has read it."""

    async def __call__(self, world: World) -> bool:
        marker, name = world.folder / f"marker-{uuid4().hex}", queue_name(world.names["app"])
        message = {
            "body": base64.b64encode(pickle.dumps(Opens(str(marker)))).decode(),
            "content-encoding": "binary",
            "content-type": "application/x-python-serialize",
            "headers": {"task": WAKE_TASK, "id": str(uuid4()), "lang": "py", "argsrepr": "", "kwargsrepr": ""},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": name},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
        client = redis.asyncio.from_url(world.engines.redis_url)
        async with client:
            await client.lpush(name, json.dumps(message))
            async with asyncio.timeout(30):
                while await client.llen(name):
                    await client.ping()
        # Bells are answered in turn: this job's comes after the pickle's.
        assert (await world.run({"text": "after"}))["state"] == "succeeded"
        return not marker.exists()


@dataclass(frozen=True)
class Decoded:
    """A pickle where the ranks' wire, or Celery's, expects what is none. True: it was refused and not run."""

    by: str

    async def __call__(self, world: World) -> bool:
        marker = world.folder / f"marker-{uuid4().hex}"
        content = pickle.dumps(Opens(str(marker)))
        try:
            if self.by == "ranks":
                decode([content])
            else:
                accepted = prepare_accept_content(make_celery(world.engines.redis_url).conf.accept_content)
                loads(content, "application/x-python-serialize", "binary", accept=accepted)
        except (SerializationFailed, ContentDisallowed, UnpackException):
            return not marker.exists()
        return False


ROWS = rows(
    "unsafe pickles",
    (
        "a pickle in place of JSON",
        Http("POST", "/v1/jobs", PICKLE, (("content-type", "application/x-python-serialize"),)),
        Problem(400, "invalid_request"),
    ),
    (
        "a pickle under the name of JSON",
        Http("POST", "/v1/jobs", PICKLE, (("content-type", "application/json"),)),
        Problem(400, "invalid_request"),
    ),
    ("a pickle as a picture", Uploaded("native", PICKLE, "image/png"), Download((BYTES,))),
    ("weights in a pickle as a film", Uploaded("fal", PICKLE, "video/mp4", "model.ckpt"), Download((BYTES,))),
    ("weights in a pickle as text", Uploaded("placed", PICKLE, "text/plain", "model.pt"), Download((BYTES,))),
    (
        "weights in a pickle under their name",
        Uploaded("native", PICKLE, "application/x-pickle", "model.bin"),
        Download(("application/x-pickle",)),
    ),
    ("a pickle by a path of the node", Input("/var/lib/models/model.pt"), JobFailed("invalid_file")),
    ("a pickle by a scheme of its own", Input("pickle:$inside"), JobFailed("invalid_file")),
    (
        "a pickle as a doorbell",
        Rung(),
        Refused(
            frozenset({"jobs", "job_events", "job_heads", "job_attempts", "job_outputs", "usage_records", "objects"})
        ),
    ),
    ("a pickle for a rank", Decoded("ranks"), Refused()),
    ("a pickle for Celery", Decoded("celery"), Refused()),
)
