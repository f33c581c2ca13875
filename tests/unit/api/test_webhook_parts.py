"""What of webhooks is computed without asking anybody: signatures, by verifiers of others, and pauses."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook, WebhookVerificationError

from api.control import signatures
from api.control.deliverer import MOST_ASKED_FOR_S, pause_after
from api.control.sending import retry_after
from stoker.settings import WEBHOOK_PAUSES_S, ControlSettings
from stoker.signing_keys import as_secret
from tests.support.webhook_verifiers import verified_as_fal_says, verified_as_v1a

BODY = '{"status":"OK","payload":{"word":"größer"}}'.encode()
OLD, NEW = b"o" * 32, b"n" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def public(pair: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(pair).public_key().public_bytes_raw()


def jwks(*pairs: bytes) -> dict[str, object]:
    written = [base64.urlsafe_b64encode(public(pair)).rstrip(b"=").decode() for pair in pairs]
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x} for x in written]}


def whpk(pair: bytes) -> str:
    return "whpk_" + base64.b64encode(public(pair)).decode()


def signed(*, pairs: tuple[bytes, ...] = (OLD, NEW), at: float | None = None) -> dict[str, str]:
    return signatures.headers(
        pairs=pairs,
        secrets=(OLD, NEW),
        tenant_id=UUID(int=1),
        delivery_id=UUID(int=2),
        job_id=UUID(int=3),
        timestamp=int(time.time() if at is None else at),
        body=BODY,
    )


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_the_package_of_standard_webhooks_verifies_with_either_secret_of_a_rotation(secret: bytes) -> None:
    assert Webhook(as_secret(secret)).verify(BODY, signed())["status"] == "OK"


@pytest.mark.parametrize(
    ("secret", "body", "after_s"),
    [(b"x" * 32, BODY, 0), (OLD, BODY + b" ", 0), (OLD, BODY, -600), (OLD, BODY, 600)],
    ids=["another secret", "another body", "replayed after ten minutes", "ten minutes ahead"],
)
def test_it_refuses_what_was_not_signed_like_that(secret: bytes, body: bytes, after_s: float) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(as_secret(secret)).verify(body, signed(at=time.time() + after_s))


@pytest.mark.parametrize("pair", [OLD, NEW])
def test_either_public_key_of_a_rotation_verifies(pair: bytes) -> None:
    assert verified_as_v1a(signed(), BODY, whpk(pair))
    assert not verified_as_v1a(signed(), BODY + b" ", whpk(pair))
    assert not verified_as_v1a(signed(), BODY, whpk(b"x" * 32))


def test_fals_recipe_verifies_with_all_keys_and_with_a_copy_made_before_the_rotation() -> None:
    assert verified_as_fal_says(signed(), BODY, jwks(OLD, NEW))
    assert verified_as_fal_says(signed(), BODY, jwks(OLD))
    assert verified_as_fal_says(signed(pairs=(NEW,)), BODY, jwks(OLD, NEW))


@pytest.mark.parametrize("name", ["request-id", "user-id", "timestamp", "signature"])
def test_fals_recipe_refuses_each_header_that_was_changed_or_is_missing(name: str) -> None:
    headers = signed()
    was = headers[f"x-fal-webhook-{name}"]
    changed = {**headers, f"x-fal-webhook-{name}": was[:-1] + ("1" if was[-1] == "0" else "0")}
    missing = {key: value for key, value in headers.items() if key != f"x-fal-webhook-{name}"}

    assert not verified_as_fal_says(changed, BODY, jwks(OLD, NEW))
    assert not verified_as_fal_says(missing, BODY, jwks(OLD, NEW))


def test_fals_recipe_refuses_what_is_old_and_a_key_that_nobody_published() -> None:
    assert not verified_as_fal_says(signed(at=time.time() - 600), BODY, jwks(OLD, NEW))
    assert not verified_as_fal_says(signed(), BODY, jwks(b"x" * 32))


def test_pauses_between_deliveries_grow_and_end() -> None:
    pauses = [pause_after(tries, WEBHOOK_PAUSES_S, 0.5) for tries in range(1, len(WEBHOOK_PAUSES_S) + 2)]

    assert pauses == [*WEBHOOK_PAUSES_S, None]
    assert list(WEBHOOK_PAUSES_S) == sorted(WEBHOOK_PAUSES_S)
    assert pause_after(1, WEBHOOK_PAUSES_S, 0.0) == pytest.approx(4.5)
    assert pause_after(1, WEBHOOK_PAUSES_S, 1.0) == pytest.approx(5.5)


def test_a_receiver_that_asks_for_time_has_it_within_a_bound_and_no_try_more() -> None:
    assert pause_after(1, (5.0,), 0.5, 60.0) == 60.0
    assert pause_after(1, (5.0,), 0.5, 1.0) == 5.0
    assert pause_after(1, (5.0,), 0.5, 1e9) == MOST_ASKED_FOR_S
    assert pause_after(2, (5.0,), 0.5, 60.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, None),
        ("Thu, 99 Jan 2026 99:99:99 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_what_retry_after_says(header: str, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_the_pauses_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("STOKER_WEBHOOK_PAUSES_S", "1, 2.5,3")

    assert ControlSettings.load().webhook_pauses_s == (1.0, 2.5, 3.0)
