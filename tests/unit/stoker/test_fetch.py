"""The guarded fetch: which addresses are public, what is followed, what is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import InvalidFile, PayloadTooLarge
from stoker.fetch import decode_data_uri, fetch, is_public
from tests.support.receiver import running_receiver

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001::1",
    ],
)  # fmt: skip
def test_addresses_that_may_lead_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0177.0.0.1/x",
        "https://127.1/x",
        "https://169.254.169.254/latest/meta-data/",
        "https://example.com@127.0.0.1/x",
        "https://user:password@example.com/x",
        "http://example.com/x",
        "http://127.0.0.1/x",
        "ftp://example.com/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/x",
        "https:///x",
        "https://a..b/x",
        f"https://{'a' * 64}.com/x",
        "https://[",
        "https://[::1/",
        "https://example.com:99999/",
        "not a url",
        "",
    ],
)
async def test_a_link_that_leads_inside_is_not_followed(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        await fetch(url, tmp_path / "x", max_bytes=10)

    assert not (tmp_path / "x").exists()


async def test_a_named_host_is_fetched(tmp_path: Path) -> None:
    async with running_receiver() as receiver:
        receiver.answer_headers = "content-type: image/png\r\n"
        allowed = frozenset({receiver.address})
        got = await fetch(f"http://{receiver.address}/cat", tmp_path / "x", max_bytes=10, allow_private_hosts=allowed)

    assert (got.content_type, got.size) == ("image/png", 2)
    assert (tmp_path / "x").read_bytes() == b"ok"
    assert receiver.received[0].path == "/cat"


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/secret", "https://localhost/secret", "file:///etc/passwd"])
async def test_a_redirect_is_checked_like_the_first_link(location: str, tmp_path: Path) -> None:
    async with running_receiver(302) as receiver:
        receiver.answer_headers = f"location: {location}\r\n"
        with pytest.raises(InvalidFile):
            await fetch(
                f"http://{receiver.address}/",
                tmp_path / "x",
                max_bytes=10,
                allow_private_hosts=frozenset({receiver.address}),
            )


async def test_redirects_without_end_are_given_up(tmp_path: Path) -> None:
    async with running_receiver(*[302] * 20) as receiver:
        receiver.answer_headers = f"location: http://{receiver.address}/again\r\n"
        with pytest.raises(InvalidFile):
            await fetch(
                f"http://{receiver.address}/",
                tmp_path / "x",
                max_bytes=10,
                allow_private_hosts=frozenset({receiver.address}),
            )

    assert len(receiver.received) == 4


async def test_more_than_was_allowed_is_not_read(tmp_path: Path) -> None:
    async with running_receiver() as receiver:
        with pytest.raises(PayloadTooLarge):
            await fetch(
                f"http://{receiver.address}/",
                tmp_path / "x",
                max_bytes=1,
                allow_private_hosts=frozenset({receiver.address}),
            )


async def test_an_answer_that_is_not_200_is_no_file(tmp_path: Path) -> None:
    async with running_receiver(404) as receiver:
        with pytest.raises(InvalidFile, match="404"):
            await fetch(
                f"http://{receiver.address}/",
                tmp_path / "x",
                max_bytes=10,
                allow_private_hosts=frozenset({receiver.address}),
            )


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("data:image/png;base64,AAEC", (b"\0\1\2", "image/png")),
        ("data:,a%20b", (b"a b", "text/plain")),
        ("DATA:text/html;charset=utf-8;BASE64,aGk=", (b"hi", "text/html")),
    ],
)
def test_a_data_uri_is_decoded(uri: str, expected: tuple[bytes, str]) -> None:
    assert decode_data_uri(uri, 10) == expected


@pytest.mark.parametrize("uri", ["", "data:", "data:image/png;base64,!!!", "data:image/png;base64,AAE", "http://x,y"])
def test_what_is_no_data_uri_is_refused(uri: str) -> None:
    with pytest.raises(InvalidFile):
        decode_data_uri(uri, 10)


@pytest.mark.parametrize("uri", ["data:,12345", "data:;base64,AAECAwQ=", "data:," + "%41" * 1000])
def test_a_data_uri_over_the_limit_is_refused(uri: str) -> None:
    with pytest.raises(PayloadTooLarge):
        decode_data_uri(uri, 4)
