"""File and Image with the constructors of fal's toolkit, over our own.

Where their ``repository`` says to which store the bytes go, the node stores them: the argument is taken and not used.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from stoker.errors import InvalidFile
from stoker.files import File as StokerFile

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["File", "Image"]

DEFAULT_TYPE = "application/octet-stream"
MAX_POINTS = 100_000_000
"""Of a picture that is read: a few kilobytes can say that they are a million times as many."""
SMALLER = f"Send a picture of at most {MAX_POINTS} points."


class File(StokerFile):
    """Any bytes."""

    def as_bytes(self) -> bytes:
        """All bytes, of a file of the input or of one that was made here."""
        source = self.source
        return source if isinstance(source, bytes) else self.path.read_bytes()

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the bytes to ``path``."""
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.source, bytes):
            path.write_bytes(self.source)
        else:
            shutil.copyfile(self.path, path)
        return path

    @classmethod
    def from_bytes(
        cls, data: bytes, content_type: str | None = None, file_name: str | None = None, **fields: Any
    ) -> Self:
        fields.pop("repository", None)
        return super().from_bytes(data, content_type=content_type or DEFAULT_TYPE, file_name=file_name, **fields)

    @classmethod
    def from_path(cls, path: str | Path, content_type: str | None = None, **fields: Any) -> Self:
        fields.pop("repository", None)
        return super().from_path(path, content_type=content_type, **fields)


class Image(File):
    """A picture, with its size in pixels."""

    width: int | None = Field(default=None, description="Pixels.")
    height: int | None = Field(default=None, description="Pixels.")

    @classmethod
    def from_pil(cls, pil_image: Picture, format: str | None = None, **fields: Any) -> Self:  # noqa: A002 - their name
        """Over a PIL picture; PNG if ``format`` says nothing else."""
        for name in ("repository", "size"):
            fields.pop(name, None)
        kind = {"jpg": "jpeg"}.get((format or "png").lower(), (format or "png").lower())
        width, height = pil_image.size
        return cls(content_type=f"image/{kind}", width=width, height=height, **fields).at(pil_image)

    def to_pil(self, mode: str = "RGB") -> Picture:
        """The picture, in ``mode``.

        Raises:
            InvalidFile: it is none, or has more points than anybody means to send.
        """
        from PIL import Image as Pil

        content = io.BytesIO(self.as_bytes())
        try:
            picture = Pil.open(content)
            if picture.width * picture.height > MAX_POINTS:
                raise InvalidFile(f"the picture has {picture.width} x {picture.height} points", hint=SMALLER)
            return picture.convert(mode)
        except Pil.DecompressionBombError as error:
            raise InvalidFile("the picture has far too many points", hint=SMALLER) from error
        except (OSError, SyntaxError) as error:
            raise InvalidFile(
                f"no picture that can be read: {error}", hint="Send a whole PNG, JPEG or WebP."
            ) from error
