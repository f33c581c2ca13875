"""Replayed and old webhooks: what our sender has signed, sent again later, or for something else.

The verifiers are those that docs/webhooks.md names: the package ``standardwebhooks``, and two that know nothing of our
code. Each has to take the delivery as it was sent first.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

from api.control import signatures
from stoker.signing_keys import as_secret
from tests.integration.security.refusals import Refused
from tests.integration.security.rows import rows
from tests.integration.security.world import World
from tests.support.webhook_verifiers import verified_as_fal_says, verified_as_v1a

BODY = b'{"status":"OK","request_id":"00000000-0000-0000-0000-000000000003"}'
PAIR, SECRET = b"p" * 32, b"s" * 32
OLD_S = 600.0


def public(pair: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(pair).public_key().public_bytes_raw()


def signed(*, ago_s: float = 0, delivery: int = 2, body: bytes = BODY) -> dict[str, str]:
    return signatures.headers(
        pairs=(PAIR,),
        secrets=(SECRET,),
        tenant_id=UUID(int=1),
        delivery_id=UUID(int=delivery),
        job_id=UUID(int=3),
        timestamp=int(time.time() - ago_s),
        body=body,
    )


def by_hmac(headers: Mapping[str, str], body: bytes) -> bool:
    """As ``standardwebhooks`` says, of what is marked v1 alone."""
    try:
        Webhook(as_secret(SECRET)).verify(body, dict(headers))
    except WebhookVerificationError:
        return False
    return True


def by_v1a(headers: Mapping[str, str], body: bytes) -> bool:
    return verified_as_v1a(headers, body, "whpk_" + base64.b64encode(public(PAIR)).decode())


def by_fals_recipe(headers: Mapping[str, str], body: bytes) -> bool:
    x = base64.urlsafe_b64encode(public(PAIR)).rstrip(b"=").decode()
    return verified_as_fal_says(headers, body, {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]})


@dataclass(frozen=True)
class Sent:
    """A delivery of so long ago, with these headers and this body in place of its own. True: it is refused."""

    verifier: Callable[[Mapping[str, str], bytes], bool]
    ago_s: float = 0
    body: bytes = BODY
    changed: Callable[[dict[str, str]], Mapping[str, str]] = field(default=dict)

    async def __call__(self, world: World) -> bool:
        assert self.verifier(signed(), BODY)
        return not self.verifier(self.changed(signed(ago_s=self.ago_s)), self.body)


def now(headers: dict[str, str]) -> dict[str, str]:
    """The same, said to be of now."""
    fresh = str(int(time.time()))
    return {**headers, "webhook-timestamp": fresh, "x-fal-webhook-timestamp": fresh}


def of_another(headers: dict[str, str]) -> dict[str, str]:
    """The signature of one delivery on another."""
    other = signed(delivery=9)
    return {**headers, "webhook-id": other["webhook-id"], "x-fal-webhook-request-id": str(UUID(int=9))}


def relabelled(headers: dict[str, str]) -> dict[str, str]:
    """Each signature under the other's mark."""
    marks = {"v1": "v1a", "v1a": "v1"}
    each = [entry.split(",", 1) for entry in headers["webhook-signature"].split(" ")]
    return {**headers, "webhook-signature": " ".join(f"{marks[mark]},{text}" for mark, text in each)}


def cut(headers: dict[str, str]) -> dict[str, str]:
    return {
        **headers,
        "webhook-signature": "v1, v1a,",
        "x-fal-webhook-signature": headers["x-fal-webhook-signature"][:64],
    }


ROWS = rows(
    "replayed and old webhooks",
    *(
        (f"{what}, to {name}", Sent(verifier, **how), Refused())
        for name, verifier in (
            ("HMAC's verifier", by_hmac),
            ("ed25519's verifier", by_v1a),
            ("fal's recipe", by_fals_recipe),
        )
        for what, how in (
            ("ten minutes old", {"ago_s": OLD_S}),
            ("ten minutes ahead", {"ago_s": -OLD_S}),
            ("old, and said to be new", {"ago_s": OLD_S, "changed": now}),
            ("on another body", {"body": BODY.replace(b"OK", b"NO")}),
            ("under another id", {"changed": of_another}),
            ("cut off", {"changed": cut}),
        )
    ),
    ("under the other's mark, to HMAC's verifier", Sent(by_hmac, changed=relabelled), Refused()),
    ("under the other's mark, to ed25519's verifier", Sent(by_v1a, changed=relabelled), Refused()),
)
