"""Object storage: bytes in and out of any S3-compatible store, and presigned links.

boto3 is synchronous, so each call runs in a thread. Keys are chosen by the caller of this module and never by a user:
``{tenant}/{job}/{attempt}/{n}-{name}`` for outputs, ``{tenant}/files/{file_id}/{name}`` for uploads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

import boto3
from anyio import to_thread
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from stoker.errors import InvalidFile, PayloadTooLarge, StorageRefused, StorageUnavailable
from stoker.store_refusals import is_refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

PART_BYTES = 8 * 1024 * 1024
DELETE_AT_ONCE = 1000
"""S3 deletes at most so many objects a request."""

SCRIPTED = re.compile(r"svg|xml|html|[^a-z0-9.+-]")
"""What makes a picture's or a film's subtype one that a browser might run, or not a type at all."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was written."""

    key: str
    size_bytes: int
    sha256: str


class Storage:
    """One bucket. Every method raises StorageUnavailable when the store cannot be reached: StorageRefused if it can."""

    def __init__(
        self,
        endpoint_url: str,
        access_key: str,
        secret_key: str,
        bucket: str,
        region: str,
        public_endpoint_url: str | None = None,
    ) -> None:
        self.bucket = bucket

        def client(url: str) -> S3Client:
            return boto3.client(
                "s3",
                endpoint_url=url,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                region_name=region,
                config=_config(),
            )

        self._s3 = client(endpoint_url)
        # A link is signed for the host that its user reaches, which may not be the one that we reach.
        self._public = client(public_endpoint_url) if public_endpoint_url not in (None, endpoint_url) else self._s3

    async def put_file(self, key: str, path: Path, content_type: str) -> Stored:
        """Store the bytes at ``path``."""

        def put() -> Stored:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self._s3.upload_file(str(path), self.bucket, key, ExtraArgs={"ContentType": content_type})
            return Stored(key, path.stat().st_size, sha256)

        return await _in_thread(put)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], content_type: str, max_bytes: int) -> Stored:
        """Store what ``chunks`` yields, holding one part of it in memory.

        Raises:
            PayloadTooLarge: more than ``max_bytes``; nothing is kept.
        """
        digest, size, buffer = hashlib.sha256(), 0, bytearray()
        parts: dict[int, str] = {}
        upload_id: str | None = None
        try:
            async for chunk in chunks:
                size += len(chunk)
                _check_size(size, max_bytes)
                digest.update(chunk)
                buffer += chunk
                if len(buffer) >= PART_BYTES:
                    upload_id = upload_id or await self.begin_multipart(key, content_type)
                    parts[len(parts) + 1] = await self.put_part(key, upload_id, len(parts) + 1, bytes(buffer))
                    buffer.clear()
            if upload_id is None:
                await self._put(key, bytes(buffer), content_type)
            else:
                if buffer:
                    parts[len(parts) + 1] = await self.put_part(key, upload_id, len(parts) + 1, bytes(buffer))
                await self.complete_multipart(key, upload_id, parts)
        except BaseException:
            if upload_id is not None:
                await self.abort_multipart(key, upload_id)
            raise
        return Stored(key, size, digest.hexdigest())

    async def get_to(self, key: str, path: Path) -> None:
        """Write the object to ``path``.

        Raises:
            InvalidFile: there is no such object, such as one whose upload was begun and never made.
        """

        def get() -> None:
            try:
                self._s3.download_file(self.bucket, key, str(path))
            except ClientError as error:
                if _is_missing(error):
                    raise InvalidFile(f"nothing is stored at {key!r}", hint="Was its upload finished?") from error
                raise

        await _in_thread(get)

    async def size_of(self, key: str) -> int | None:
        """The object's size in bytes, None if there is no such object."""

        def head() -> int | None:
            try:
                return self._s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise

        return await _in_thread(head)

    async def beginning(self, key: str, size_bytes: int) -> bytes:
        """The first bytes of the object, fewer if it has no more."""

        def get() -> bytes:
            return self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read(size_bytes)

        return await _in_thread(get)

    async def begin_multipart(self, key: str, content_type: str) -> str:
        """Begin an object that comes in parts, each sent by itself; the upload's id."""
        begin = self._s3.create_multipart_upload
        return (await _in_thread(lambda: begin(Bucket=self.bucket, Key=key, ContentType=content_type)))["UploadId"]

    async def put_part(self, key: str, upload_id: str, number: int, body: bytes | IO[bytes]) -> str:
        """Store part ``number``, from 1 on; its tag. All but the last need 5 MiB."""
        put = self._s3.upload_part
        done = await _in_thread(
            lambda: put(Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body)
        )
        return done["ETag"]

    async def complete_multipart(self, key: str, upload_id: str, tags: Mapping[int, str]) -> None:
        """Make the object of its parts, by their numbers."""
        complete = self._s3.complete_multipart_upload
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": tag} for number, tag in sorted(tags.items())
        ]
        await _in_thread(
            lambda: complete(Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts})
        )

    async def abort_multipart(self, key: str, upload_id: str) -> None:
        """Throw the parts away. There is no error if it was completed or aborted before."""

        def abort() -> None:
            try:
                self._s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
            except ClientError as error:
                if not _is_missing(error):
                    raise

        await _in_thread(abort)

    def presign_get(
        self,
        key: str,
        *,
        file_name: str,
        content_type: str,
        expires_s: int = 3600,
        method: Literal["GET", "HEAD"] = "GET",
    ) -> str:
        """A link that anybody may read the object with until it expires, by ``method`` alone. Makes no request."""
        return self._public.generate_presigned_url(
            "head_object" if method == "HEAD" else "get_object",
            Params={
                "Bucket": self.bucket,
                "Key": key,
                "ResponseContentDisposition": disposition(file_name, content_type),
                "ResponseContentType": content_type,
            },
            ExpiresIn=expires_s,
        )

    def presign_put(self, key: str, *, content_type: str, size_bytes: int, expires_s: int = 3600) -> str:
        """A link that takes one PUT of exactly ``size_bytes`` with that Content-Type. Makes no request."""
        return self._public.generate_presigned_url(
            "put_object",
            Params={"Bucket": self.bucket, "Key": key, "ContentType": content_type, "ContentLength": size_bytes},
            ExpiresIn=expires_s,
        )

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that do not exist are no error."""

        def delete() -> None:
            for start in range(0, len(keys), DELETE_AT_ONCE):
                objects: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start : start + DELETE_AT_ONCE]]
                answer = self._s3.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})
                if refused := answer.get("Errors"):
                    first = refused[0]
                    raise StorageUnavailable(
                        f"the object store did not delete {len(refused)} objects, such as {first.get('Key')!r}: "
                        f"{first.get('Code')} {first.get('Message')}"
                    )

        await _in_thread(delete)

    async def delete_prefix(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        """Delete all objects whose keys begin with ``prefix``, except those of the keys ``keep``; how many it were."""

        def find() -> list[str]:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [found["Key"] for page in pages for found in page.get("Contents", ()) if found["Key"] not in keep]

        keys = await _in_thread(find)
        await self.delete(keys)
        return len(keys)

    async def check(self) -> None:
        """Ask for the bucket."""
        await _in_thread(lambda: self._s3.head_bucket(Bucket=self.bucket))

    async def _put(self, key: str, body: bytes, content_type: str) -> None:
        put = self._s3.put_object
        await _in_thread(lambda: put(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type))


def disposition(file_name: str, content_type: str) -> str:
    """Show pictures, sound, films and plain text in the browser; hand everything else over as a download.

    HTML, SVG and any other XML can hold scripts, so they are never shown, however their type is spelt.
    """
    kind = content_type.partition(";")[0].strip().lower()
    major, _, minor = kind.partition("/")
    shown = kind == "text/plain" or (major in ("image", "audio", "video") and SCRIPTED.search(minor) is None)
    return f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{quote(file_name, safe='')}"


def _is_missing(error: ClientError) -> bool:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404


def _check_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise PayloadTooLarge(f"the file has more than {max_bytes} bytes")


def _config() -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        # Stores other than AWS do not know the checksums that boto3 adds by itself.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 3},
        max_pool_connections=32,
    )


async def _in_thread(act: Callable[[], T]) -> T:
    try:
        return await to_thread.run_sync(act)
    except (BotoCoreError, ClientError, boto3.exceptions.Boto3Error) as error:
        if is_refusal(error):
            raise StorageRefused(f"the object store refused: {error}") from error
        raise StorageUnavailable(f"the object store did not answer as it should: {error}") from error
