"""Signatures of webhooks: by Standard Webhooks with a secret and with a key pair, and by fal's recipe.

Pure. All of them stand on each delivery, so a receiver verifies whichever it knows. Keys are ``stoker.signing_keys``'.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def headers(
    *,
    pairs: Sequence[bytes],
    secrets: Sequence[bytes],
    tenant_id: UUID,
    delivery_id: UUID,
    job_id: UUID,
    timestamp: int,
    body: bytes,
) -> dict[str, str]:
    """The headers of one delivery attempt.

    ``pairs`` are private keys, the oldest first: by fal's recipe there is one signature alone, and the oldest key is
    the one that all receivers know, whatever age their copy of the public keys has.
    """
    pens = [Ed25519PrivateKey.from_private_bytes(pair) for pair in pairs]
    signed = b"%s.%d.%s" % (str(delivery_id).encode(), timestamp, body)
    signatures = [f"v1,{_text(hmac.digest(secret, signed, hashlib.sha256))}" for secret in secrets]
    signatures += [f"v1a,{_text(pen.sign(signed))}" for pen in pens]
    as_fal = "\n".join([str(job_id), str(tenant_id), str(timestamp), hashlib.sha256(body).hexdigest()])
    return {
        "webhook-id": str(delivery_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
        "x-fal-webhook-request-id": str(job_id),
        "x-fal-webhook-user-id": str(tenant_id),
        "x-fal-webhook-timestamp": str(timestamp),
        "x-fal-webhook-signature": pens[0].sign(as_fal.encode()).hex(),
    }


def _text(signature: bytes) -> str:
    return base64.b64encode(signature).decode()
