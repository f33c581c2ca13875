"""Server-side requests: addresses that a job's webhook or its input names, and where they would lead."""

from __future__ import annotations

from tests.integration.security.acts import Called, Connects, Http, Input
from tests.integration.security.refusals import FalError, JobFailed, NotCalled, Problem, Refused
from tests.integration.security.rows import HUSH, rows

WRONG, NO_FILE = Problem(422, "invalid_input"), JobFailed("invalid_file")
PUBLIC = "93.184.216.34"


def named(url: str) -> Http:
    """A submit that names it as its webhook."""
    return Http("POST", "/v1/jobs", {"app": "$app", "input": {"text": "x"}, "webhook_url": url})


def at_fals(query: str) -> Http:
    return Http("POST", f"/queue/$app?fal_webhook={query}", {"text": "x"})


def proxied(target: str) -> Http:
    return Http("GET", "/api/fal/proxy", headers=(("x-fal-target-url", target),))


ROWS = rows(
    "SSRF",
    ("a webhook without TLS", named("http://93.184.216.34/"), WRONG),
    ("a webhook of another scheme", named("ftp://93.184.216.34/"), WRONG),
    ("a webhook that is a file", named("file:///etc/passwd"), WRONG),
    ("a webhook with a user", named(f"https://user:{HUSH}@example.com/"), WRONG),
    ("a webhook whose host hides behind a user", named("https://example.com@127.0.0.1/"), WRONG),
    ("a webhook whose host is none", named("https://exam ple.com/"), WRONG),
    ("a webhook with an IPv6 zone", named("https://[fe80::1%25eth0]/"), WRONG),
    ("a webhook beside the allowed port", named("http://$inside/"), WRONG),
    ("a webhook at fal's face without TLS", at_fals("http%3A%2F%2F169.254.169.254%2F"), FalError(422)),
    ("a webhook at fal's face that is a file", at_fals("file%3A%2F%2F%2Fetc%2Fpasswd"), FalError(422)),
    ("a webhook at fal's face with a user", at_fals("https%3A%2F%2Fa%40127.0.0.1%2F"), FalError(422)),
    ("a webhook to a number", Called("https://2130706433/"), NotCalled()),
    ("a webhook in octal", named("https://0177.0.0.1/"), WRONG),
    ("a webhook in hex", Called("https://0x7f.1/"), NotCalled()),
    ("a webhook to IPv4 in IPv6", Called("https://[::ffff:127.0.0.1]/"), NotCalled()),
    ("a webhook to IPv4 translated", Called("https://[64:ff9b::7f00:1]/"), NotCalled()),
    ("a webhook to the metadata", Called("https://169.254.169.254/latest/meta-data/"), NotCalled()),
    ("a webhook to a name of this machine", Called("https://localhost/"), NotCalled()),
    ("a webhook to another port", Called("https://93.184.216.34:22/"), NotCalled()),
    ("a webhook to a port inside", Called("https://$inside/"), NotCalled()),
    ("an input without TLS", Input("http://$inside/"), NO_FILE),
    ("an input from a number", Input("https://2130706433:$inside_port/"), NO_FILE),
    ("an input in octal", Input("https://0177.0.0.1/"), NO_FILE),
    ("an input in hex", Input("https://0x7f000001/"), NO_FILE),
    ("an input in short", Input("https://127.1/"), NO_FILE),
    ("an input from nothing", Input("https://0/"), NO_FILE),
    ("an input from IPv4 in IPv6", Input("https://[::ffff:a9fe:a9fe]/"), NO_FILE),
    ("an input with an IPv6 zone", Input("https://[fe80::1%25lo]/"), NO_FILE),
    ("an input from the metadata", Input("https://169.254.169.254/latest/meta-data/iam/"), NO_FILE),
    ("an input from the own network", Input("https://10.0.0.1/"), NO_FILE),
    ("an input from a name of this machine", Input("https://localhost:$inside_port/"), NO_FILE),
    ("an input with a user", Input(f"https://user:{HUSH}@127.0.0.1/"), NO_FILE),
    ("an input whose host hides behind a user", Input("https://$receiver@127.0.0.1:$inside_port/"), NO_FILE),
    ("an input that is a file", Input("file:///etc/passwd"), NO_FILE),
    ("an input of another scheme", Input("gopher://$inside/_x"), NO_FILE),
    ("an input of no scheme", Input("//$inside/"), NO_FILE),
    ("an input that leads inside by a redirect", Input("http://$receiver/"), NO_FILE),
    ("an input from our own store by its address", Input("http://127.0.0.1/outputs/$token/$output"), NO_FILE),
    ("a name that moves inside after the look-up", Connects("rebinding.test", ((PUBLIC,), ("127.0.0.1",))), Refused()),
    ("a name that is inside", Connects("metadata.test", (("169.254.169.254",),)), Refused()),
    ("a name that is outside and inside", Connects("both.test", ((PUBLIC, "10.0.0.1"),)), Refused()),
    ("a name that is of the own network by IPv6", Connects("ula.test", (("fd00:ec2::254",),)), Refused()),
    ("a name of a public host at a port of ours", Connects("ports.test", ((PUBLIC,),), 6379), Refused()),
    (
        "the ending of an allowed name",
        Connects("evil-allowed.test", (("10.0.0.1",),), allowed=frozenset({"allowed.test"})),
        Refused(),
    ),
    (
        "another port of an allowed name",
        Connects("allowed.test", (("10.0.0.1",),), allowed=frozenset({"allowed.test:8443"})),
        Refused(),
    ),
    ("a proxied address inside", proxied("http://169.254.169.254/latest/"), FalError(400, "invalid_request")),
    (
        "a proxied address behind a user",
        proxied("https://queue.fal.run@169.254.169.254/"),
        FalError(400, "invalid_request"),
    ),
    ("a proxied address at another port", proxied("https://queue.fal.run:8443/x"), FalError(400, "invalid_request")),
)
