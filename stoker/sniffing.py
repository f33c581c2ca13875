"""Sniffing: the media type of a file by its first bytes, where a browser would go by what its sender says.

Pure. A type that browsers show (pictures, sound, films, plain text) is believed if the bytes are of it; what is not
becomes a download. Nothing is decoded: a picture of a million times a million points is its first bytes here.
"""

from __future__ import annotations

import re

HEAD_BYTES = 512
"""So many bytes are looked at: more than any of these signatures needs, and what browsers look at themselves."""
UNKNOWN = "application/octet-stream"
TEXT = "text/plain"
SHOWN = ("image", "audio", "video")

_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM....\0\0\0\0", re.DOTALL), "image/bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), "image/tiff"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "image/avif"),
    (re.compile(rb"....ftyp(hei[cxms]|mif1|msf1)", re.DOTALL), "image/heic"),
    (re.compile(rb"....ftypqt  ", re.DOTALL), "video/quicktime"),
    (re.compile(rb"....ftypM4A ", re.DOTALL), "audio/mp4"),
    (re.compile(rb"....ftyp", re.DOTALL), "video/mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "video/webm"),
    (re.compile(rb"RIFF....AVI ", re.DOTALL), "video/x-msvideo"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "audio/wav"),
    (re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), "audio/mpeg"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "audio/aac"),
    (re.compile(rb"OggS"), "audio/ogg"),
    (re.compile(rb"fLaC"), "audio/flac"),
)
_ALIKE = {"audio/ogg": ("video/ogg",), "video/webm": ("audio/webm", "video/x-matroska"), "video/mp4": ("audio/mp4",)}
"""Types that the same bytes may be, as their senders know."""
_MARKUP = re.compile(rb"<[!?/a-z]", re.IGNORECASE)
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def media_type(head: bytes, said: str) -> str:
    """The type of a file that begins with ``head`` (``HEAD_BYTES`` or more, or all of it) and is ``said`` to be one."""
    head = head[:HEAD_BYTES]
    found = next((kind for signature, kind in _SIGNATURES if signature.match(head)), None)
    is_shown = said.partition("/")[0] in SHOWN and not said.endswith("+xml")
    if found is not None and (is_shown or said in (UNKNOWN, TEXT)):
        return said if said in _ALIKE.get(found, ()) else found
    if is_shown:
        return UNKNOWN
    return said if said != TEXT or _is_plain(head) else UNKNOWN


def _is_plain(head: bytes) -> bool:
    """Whether it is text, and none of what a browser takes for a page: a text with a tag in it is a download, too."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # a letter that the end of the head has cut is none of its faults
            return False
    return _NOT_TEXT.search(head) is None and _MARKUP.search(head) is None
