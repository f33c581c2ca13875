"""File: how an object that a job takes in or gives out looks in JSON.

Pure: no I/O. In an input a File is the id of an uploaded file, a data URI or an https URL; the node fetches it before the
app sees it. In a result an app gives a File made from bytes, a path or a picture; the node stores it and fills in ``url``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from stoker.errors import InvalidFile


class File(BaseModel):
    """An object that a job reads or makes.

    ``path`` is where its bytes lie while the app runs: set before an endpoint is called with it, and by ``from_path``.
    """

    model_config = ConfigDict(json_schema_extra={"x-stoker": "file"})

    url: str = Field(default="", description="A link, a data URI, or the id of an uploaded file.")
    content_type: str | None = Field(default=None, description="Its media type.")
    file_name: str | None = Field(default=None, description="Its name.")
    file_size: int | None = Field(default=None, description="Its size in bytes.")

    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _accept_plain_link(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @property
    def path(self) -> Path:
        """Where the bytes lie on this machine.

        Raises:
            InvalidFile: they were not fetched.
        """
        if self._path is None:
            raise InvalidFile(f"{self.url[:80]!r} was not fetched", hint="Call 'await self.fetch(file)' first.")
        return self._path

    @property
    def is_local(self) -> bool:
        return self._path is not None

    def at(self, path: Path) -> Self:
        """This file, with its bytes at ``path``."""
        self._path = path
        return self

    @classmethod
    def from_path(cls, path: str | Path, *, content_type: str | None = None, **fields: Any) -> Self:
        """A File over the bytes at ``path``, which must stay there until the endpoint has returned.

        Raises:
            InvalidFile: nothing is there.
        """
        path = Path(path)
        if not path.is_file():
            raise InvalidFile(f"no file at {path}", hint="Write the file before you return it.")
        return cls(content_type=content_type, file_name=path.name, file_size=path.stat().st_size, **fields).at(path)


class Image(File):
    """A picture, with its size in pixels."""

    width: int | None = Field(default=None, description="Pixels.")
    height: int | None = Field(default=None, description="Pixels.")
