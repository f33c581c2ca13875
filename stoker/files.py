"""File: how an object that a job takes in or gives out looks in JSON.

Pure: no I/O. In an input a File is the id of an uploaded file, a data URI or an https URL, as an object or as that
string alone; the node fetches it before the app sees it. In a result an app gives a File made from bytes, a path or a
picture; the node stores it and fills in ``url``.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PrivateAttr, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from stoker.errors import InvalidFile


class Pixels(Protocol):
    """What a PIL image offers of itself. It is encoded when the result is made, as ``content_type`` says then."""

    @property
    def size(self) -> tuple[int, int]: ...

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None: ...  # noqa: A002 - PIL's name


Source = Path | bytes | Pixels
"""Where the bytes of a File are while the app runs."""


class File(BaseModel):
    """An object that a job reads or makes.

    ``path`` is where its bytes lie while the app runs: set before an endpoint is called with it, and by ``from_path``.
    """

    model_config = ConfigDict(
        json_schema_extra={"x-stoker": "file", "description": "The id of an uploaded file, a data URI or an https URL."}
    )

    url: str = Field(default="", description="A link, a data URI, or the id of an uploaded file.")
    content_type: str | None = Field(default=None, description="Its media type.")
    file_name: str | None = Field(default=None, description="Its name.")
    file_size: int | None = Field(default=None, description="Its size in bytes.")

    _source: Source | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _accept_plain_link(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """In an input, the string alone is as good as the object; and nothing can be fetched without a url."""
        schema = handler(core_schema)
        if handler.mode == "validation":
            definition = handler.resolve_ref_schema(schema)
            whole: JsonSchemaValue = dict(definition)
            texts: JsonSchemaValue = {name: whole.pop(name) for name in ("title", "description", "x-stoker")}
            link: JsonSchemaValue = {"type": "string", "minLength": 1, "description": texts["description"]}
            whole["properties"] = {**whole["properties"], "url": link}
            whole["required"] = ["url", *whole.get("required", ())]
            definition.clear()
            definition.update(texts | {"anyOf": [link, whole]})
        return schema

    @property
    def path(self) -> Path:
        """Where the bytes lie on this machine.

        Raises:
            InvalidFile: they were not fetched.
        """
        if not isinstance(self._source, Path):
            raise InvalidFile(f"{self.url[:80]!r} was not fetched", hint="Call 'await self.fetch(file)' first.")
        return self._source

    @property
    def source(self) -> Source | None:
        """Where its bytes are while the app runs: a path, the bytes, or a picture. None if it is only a link."""
        return self._source

    @property
    def is_local(self) -> bool:
        return self._source is not None

    def at(self, source: Source) -> Self:
        """This file, with its bytes at ``source``."""
        self._source = source
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

    @classmethod
    def from_bytes(cls, data: bytes, *, content_type: str, file_name: str | None = None, **fields: Any) -> Self:
        """A File over ``data``."""
        return cls(content_type=content_type, file_name=file_name, file_size=len(data), **fields).at(bytes(data))

    @classmethod
    def of(cls, file: File, **fields: Any) -> Self:
        """``file`` as this class, with more fields: ``Picture.of(image, seed=7)``."""
        known = {name: value for name, value in dict(file).items() if name in cls.model_fields}
        made = cls(**(known | fields))
        made._source = file.source
        return made


class Image(File):
    """A picture, with its size in pixels."""

    width: int | None = Field(default=None, description="Pixels.")
    height: int | None = Field(default=None, description="Pixels.")

    @classmethod
    def from_picture(cls, picture: Pixels, *, content_type: str = "image/png", **fields: Any) -> Self:
        """A File over a PIL picture, not yet encoded: as ``content_type`` says when the endpoint has returned."""
        width, height = picture.size
        return cls(content_type=content_type, width=width, height=height, **fields).at(picture)
