"""Verifiers of webhooks that know nothing of our code: by fal's published recipe, and ed25519 of Standard Webhooks.

They use another library than the sender does. HMAC signatures are verified by the package ``standardwebhooks``.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

TOLERANCE_S = 300


def verified_as_fal_says(headers: Mapping[str, str], body: bytes, jwks: Mapping[str, Any]) -> bool:
    """Four headers; a time that is near; any of the published keys over four lines, the last being the body's hash."""
    try:
        request_id, user_id, timestamp, signature = (
            headers[f"x-fal-webhook-{name}"] for name in ("request-id", "user-id", "timestamp", "signature")
        )
        if abs(time.time() - int(timestamp)) > TOLERANCE_S:
            return False
        raw = bytes.fromhex(signature)
    except (KeyError, ValueError):
        return False
    message = "\n".join([request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()]).encode()
    return any(
        _is_by(base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4)), message, raw)
        for key in jwks["keys"]
        if key.get("kty") == "OKP" and key.get("crv") == "Ed25519"
    )


def verified_as_v1a(headers: Mapping[str, str], body: bytes, public_key: str) -> bool:
    """``public_key`` is ``whpk_`` and base64; the time is near, and one of the signatures marked v1a must be by it."""
    if abs(time.time() - int(headers["webhook-timestamp"])) > TOLERANCE_S:
        return False
    key = base64.b64decode(public_key.removeprefix("whpk_"))
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    marked = [entry.split(",", 1) for entry in headers["webhook-signature"].split(" ")]
    return any(_is_by(key, message, base64.b64decode(text)) for mark, text in marked if mark == "v1a")


def _is_by(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True
