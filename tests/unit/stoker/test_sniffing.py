"""Which type a file is stored under: what its bytes show, where a browser would show it."""

from __future__ import annotations

import pytest

from stoker.sniffing import HEAD_BYTES, UNKNOWN, media_type

PNG, JPEG, WEBM = b"\x89PNG\r\n\x1a\n" + b"\0" * 20, b"\xff\xd8\xff\xe0", b"\x1a\x45\xdf\xa3"
MP4, WAV = b"\0\0\0\x20ftypisom", b"RIFF\0\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("head", "said", "kind"),
    [
        (PNG, "image/png", "image/png"),
        (JPEG, "image/png", "image/jpeg"),
        (PNG, UNKNOWN, "image/png"),
        (PNG, "application/json", "application/json"),
        (WEBM, "audio/webm", "audio/webm"),
        (WEBM, "image/png", "video/webm"),
        (MP4, "video/mp4", "video/mp4"),
        (WAV, "audio/x-wav", "audio/wav"),
        (b"hello, w\xc3\xb6rld\n", "text/plain", "text/plain"),
        (b"", "text/plain", "text/plain"),
        (b"1 < 2 and 3 > 2", "text/plain", "text/plain"),
        (b"PK\x03\x04", "application/zip", "application/zip"),
        (b'{"a": 1}', "application/json", "application/json"),
    ],
)
def test_what_the_bytes_show_is_believed(head: bytes, said: str, kind: str) -> None:
    assert media_type(head, said) == kind


@pytest.mark.parametrize("said", ["image/png", "video/mp4", "audio/mpeg", "text/plain", "image/x-unheard-of"])
@pytest.mark.parametrize(
    "head", [b"<html>", b"<?xml version", b"<svg ", b"<!doctype", b"\x80\x04\x95", b"a\0b", b"%PDF-1"]
)
def test_what_is_shown_and_is_not_what_it_is_called_becomes_bytes(head: bytes, said: str) -> None:
    if (head, said) != (b"%PDF-1", "text/plain"):
        assert media_type(head, said) == UNKNOWN


def test_a_letter_that_the_end_of_the_head_cuts_is_still_text() -> None:
    cut = b"a" * (HEAD_BYTES - 1) + "é".encode()

    assert media_type(cut, "text/plain") == "text/plain"
    assert media_type(b"a\xff", "text/plain") == UNKNOWN
