"""Object storage against a real S3 API."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from stoker.errors import InvalidFile, PayloadTooLarge, StorageUnavailable
from stoker.local.engines import Engines
from stoker.storage import PART_BYTES, Storage

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage(engines: Engines) -> Storage:
    s3 = engines.s3
    return Storage(s3.endpoint_url, s3.access_key, s3.secret_key, s3.bucket, s3.region)


async def chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


async def test_a_file_comes_back_as_it_was_stored(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"bytes of a picture")
    key = f"tests/{uuid4()}/cat.png"

    stored = await storage.put_file(key, tmp_path / "in", "image/png")
    await storage.get_to(key, tmp_path / "out")

    assert stored.size_bytes == 18
    assert stored.sha256 == hashlib.sha256(b"bytes of a picture").hexdigest()
    assert (tmp_path / "out").read_bytes() == b"bytes of a picture"


@pytest.mark.parametrize("sizes", [(), (1,), (PART_BYTES,), (PART_BYTES, 1), (PART_BYTES - 1, PART_BYTES, 5)])
async def test_a_stream_of_any_size_is_stored_whole(storage: Storage, sizes: tuple[int, ...]) -> None:
    key = f"tests/{uuid4()}/stream"

    stored = await storage.put_stream(key, chunks(*sizes), "application/octet-stream", 10 * PART_BYTES)

    assert stored.size_bytes == sum(sizes) == await storage.size_of(key)
    assert stored.sha256 == hashlib.sha256(b"x" * sum(sizes)).hexdigest()


async def test_a_stream_over_its_limit_leaves_no_object(storage: Storage) -> None:
    key = f"tests/{uuid4()}/stream"

    with pytest.raises(PayloadTooLarge):
        await storage.put_stream(key, chunks(PART_BYTES, PART_BYTES, 1), "text/plain", 2 * PART_BYTES)

    assert await storage.size_of(key) is None


async def test_deleted_objects_are_gone(storage: Storage) -> None:
    keys = [f"tests/{uuid4()}/{number}" for number in range(3)]
    for key in keys[:2]:
        await storage.put_stream(key, chunks(1), "text/plain", 1)

    await storage.delete(keys)

    assert [await storage.size_of(key) for key in keys] == [None] * 3


async def test_all_objects_under_a_prefix_are_deleted_and_no_others(storage: Storage) -> None:
    root = uuid4()
    keys = [f"tests/{root}/a/1/x", f"tests/{root}/a/2/y", f"tests/{root}/ab"]
    for key in keys:
        await storage.put_stream(key, chunks(1), "text/plain", 1)

    assert await storage.delete_prefix(f"tests/{root}/a/") == 2
    assert await storage.delete_prefix(f"tests/{root}/nothing/") == 0

    assert [await storage.size_of(key) for key in keys] == [None, None, 1]


async def test_a_store_that_refuses_to_delete_is_said_so() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<DeleteResult><Error><Key>a/b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        storage = Storage(f"http://127.0.0.1:{server.server_port}", "key", "secret", "outputs", "us-east-1")
        with pytest.raises(StorageUnavailable, match="AccessDenied"):
            await storage.delete(["a/b"])
        server.shutdown()


async def test_an_object_that_was_never_stored_is_no_file(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        await storage.get_to(f"tests/{uuid4()}/nothing", tmp_path / "out")


async def test_a_link_that_was_changed_opens_nothing(storage: Storage) -> None:
    mine, other = f"tests/{uuid4()}/mine", f"tests/{uuid4()}/other"
    for key in (mine, other):
        await storage.put_stream(key, chunks(1), "text/plain", 1)
    link = storage.presign_get(mine, file_name="mine", content_type="text/plain")

    async with httpx2.AsyncClient() as anybody:
        good = await anybody.get(link)
        moved = await anybody.get(link.replace(mine, other))
        bare = await anybody.get(link.partition("?")[0])

    assert [good.status_code, moved.status_code, bare.status_code] == [200, 403, 403]


def test_links_name_the_host_that_callers_reach(engines: Engines) -> None:
    s3 = engines.s3
    storage = Storage(s3.endpoint_url, s3.access_key, s3.secret_key, s3.bucket, s3.region, "https://files.example")

    link = storage.presign_get("a/b", file_name="b", content_type="text/plain")

    assert link.startswith(f"https://files.example/{s3.bucket}/a/b?")


async def test_a_store_that_cannot_be_reached_is_said_so() -> None:
    storage = Storage("http://127.0.0.1:1", "key", "secret", "outputs", "us-east-1")

    with pytest.raises(StorageUnavailable):
        await storage.check()


async def test_a_wrong_secret_is_refused(engines: Engines) -> None:
    s3 = engines.s3
    storage = Storage(s3.endpoint_url, s3.access_key, "wrong" * 8, s3.bucket, s3.region)

    with pytest.raises(StorageUnavailable):
        await storage.check()
