"""JWKS confusion: tokens that name their own way of being checked, public keys as secrets, others' sets of keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.integration.security.acts import Http
from tests.integration.security.kinds.signatures import BODY, PAIR, public, signed
from tests.integration.security.refusals import FalError, Problem, Refused, Without
from tests.integration.security.rows import HUSH, rows
from tests.integration.security.wire import Answer
from tests.integration.security.world import World
from tests.support.webhook_verifiers import verified_as_fal_says

NO_KEY, NO_KEY_OF_FALS = Problem(401, "unauthenticated"), FalError(401, "unauthenticated")
CLAIMS = {"sub": "victim", "scopes": ["admin"], "exp": 4102444800}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True)
class Token:
    """A JSON Web Token as a key, or for an upload. ``by_public_key``: what everybody has is taken for a secret."""

    header: Mapping[str, Any]
    by_public_key: bool = False
    for_upload: bool = False

    async def __call__(self, world: World) -> Answer | None:
        header = world.filled(json.dumps(self.header))
        text = f"{b64(header.encode())}.{b64(json.dumps(CLAIMS).encode())}"
        key = unb64(world.names["jwk_x"])
        mac = b64(hmac.new(key, text.encode(), hashlib.sha256).digest()) if self.by_public_key else ""
        given = (("authorization", f"Bearer {text}.{mac}"),)
        if self.for_upload:
            return await Http("POST", "/cdn/files/upload", b"x", given, None)(world)
        return await Http("GET", "/v1/jobs", None, given, None)(world)


@dataclass(frozen=True)
class UploadToken:
    """An upload token put together from what a stranger has: ``of`` whose key, until when, with which mac."""

    of: str = "victim"
    ends_in_s: int = 3000
    mac: Callable[[World, str], str] = lambda world, text: "0" * 64

    async def __call__(self, world: World) -> Answer | None:
        key_id, ends = world.names[f"{self.of}_key_id"], int(time.time()) + self.ends_in_s
        text = f"{key_id}.{ends}.upload"
        token = f"{text}.{self.mac(world, f'token:{text}')}"
        return await Http("POST", "/cdn/files/upload", b"x", (("authorization", f"Bearer {token}"),), None)(world)


@dataclass(frozen=True)
class Verified:
    """A webhook that is well signed, or by whoever made ``signature``, checked against a set of keys of another's."""

    keys: tuple[Mapping[str, str], ...]
    signature: str | None = None

    async def __call__(self, world: World) -> bool:
        headers = signed()
        own = {"kty": "OKP", "crv": "Ed25519", "x": b64(public(PAIR))}
        assert verified_as_fal_says(headers, BODY, {"keys": [own]})
        if self.signature is not None:
            headers["x-fal-webhook-signature"] = self.signature
        return not verified_as_fal_says(headers, BODY, {"keys": list(self.keys)})


def own_mac(world: World, text: str) -> str:
    """By the secret of the stranger's own key."""
    digest = hashlib.sha256(world.names["stranger_secret"].encode()).digest()
    return hmac.new(digest, text.encode(), hashlib.sha256).hexdigest()


def public_mac(world: World, text: str) -> str:
    return hmac.new(unb64(world.names["jwk_x"]), text.encode(), hashlib.sha256).hexdigest()


def last_mac(world: World, text: str) -> str:
    """Of a token that was good for a shorter time."""
    return world.names["stranger_token"].rpartition(".")[2]


OWN_X = b64(public(PAIR))
ROWS = rows(
    "JWKS confusion",
    ("a token of no algorithm", Token({"alg": "none", "kid": "$kid"}), NO_KEY),
    ("a token of no algorithm in capitals", Token({"alg": "NONE"}), NO_KEY),
    ("a token signed with the public key", Token({"alg": "HS256", "kid": "$kid"}, by_public_key=True), NO_KEY),
    (
        "a token that brings its key",
        Token({"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "$jwk_x"}}),
        NO_KEY,
    ),
    (
        "a token that says where its key is",
        Token({"alg": "EdDSA", "jku": "http://$inside/jwks", "x5u": "http://$inside"}),
        NO_KEY,
    ),
    (
        "a token whose key's name is a path",
        Token({"alg": "HS256", "kid": "../../../../dev/null"}, by_public_key=True),
        NO_KEY,
    ),
    (
        "a token whose key's name is a union",
        Token({"alg": "HS256", "kid": "x' UNION SELECT 'a"}, by_public_key=True),
        NO_KEY,
    ),
    ("a token of no algorithm for an upload", Token({"alg": "none"}, for_upload=True), NO_KEY_OF_FALS),
    (
        "a token signed with the public key for an upload",
        Token({"alg": "HS256"}, by_public_key=True, for_upload=True),
        NO_KEY_OF_FALS,
    ),
    ("an upload token of another's key with no mac", UploadToken(), NO_KEY_OF_FALS),
    ("an upload token of another's key with the own mac", UploadToken(mac=own_mac), NO_KEY_OF_FALS),
    ("an upload token by the public key", UploadToken(mac=public_mac), NO_KEY_OF_FALS),
    ("an upload token made longer", UploadToken("stranger", 10**9, last_mac), NO_KEY_OF_FALS),
    ("an upload token past its time", UploadToken("stranger", -1, own_mac), NO_KEY_OF_FALS),
    (
        "an upload token of a revoked key",
        Http("POST", "/cdn/files/upload", b"x", (("authorization", "Bearer $revoked_token"),), None),
        NO_KEY_OF_FALS,
    ),
    (
        "an upload token that is none",
        Http("POST", "/cdn/files/upload", b"x", (("authorization", f"Bearer {HUSH}..."),), None),
        NO_KEY_OF_FALS,
    ),
    (
        "the set of public keys asked for more",
        Http("GET", "/.well-known/jwks.json?private=true", key=None),
        Without(200, ('"d"', '"k"', "whsec_", '"oct"')),
    ),
    ("a set with a secret in place of a key", Verified(({"kty": "oct", "k": OWN_X, "x": OWN_X},)), Refused()),
    ("a set with a key of another curve", Verified(({"kty": "OKP", "crv": "X25519", "x": OWN_X},)), Refused()),
    (
        "a set with another's key under the same name",
        Verified(({"kty": "OKP", "crv": "Ed25519", "kid": "the-same", "x": b64(public(b"x" * 32))},)),
        Refused(),
    ),
    ("a set of no keys", Verified(()), Refused()),
    (
        "a key that verifies everything",
        Verified(({"kty": "OKP", "crv": "Ed25519", "x": b64(b"\1" + bytes(31))},), signature=(b"\1" + bytes(63)).hex()),
        Refused(),
    ),
    (
        "a signature made with the public key",
        Verified(
            ({"kty": "OKP", "crv": "Ed25519", "x": OWN_X},), hmac.new(public(PAIR), BODY, hashlib.sha512).hexdigest()
        ),
        Refused(),
    ),
)
