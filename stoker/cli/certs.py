"""``stoker certs``: certificates with which the API serves https by itself, for clients that insist on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stoker.cli import show
from stoker.cli.extras import require
from stoker.cli.options import AsJson

LOCAL = ["localhost", "127.0.0.1", "::1"]


def certs(
    *,
    folder: Annotated[Path, typer.Option("--dir", help="Where to write them; what is there is replaced.")] = Path(
        ".stoker/certs"
    ),
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address of the API besides localhost. Repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an authority and a certificate for the API, valid for a year."""
    require("cryptography", extra="api")
    from stoker import certificates

    made = certificates.make(folder.resolve(), [*LOCAL, *(host or ())])
    if as_json:
        show.as_json({"authority": str(made.authority), "certificate": str(made.certificate), "key": str(made.key)})
        return
    show.line(f"wrote {made.authority}, {made.certificate} and {made.key}")
    show.line("the API serves https with:")
    show.line(f"  STOKER_TLS_CERTIFICATE={made.certificate} STOKER_TLS_KEY={made.key}")
    show.line("its clients trust it with:")
    show.line(f"  SSL_CERT_FILE={made.authority} (Python), NODE_EXTRA_CA_CERTS={made.authority} (Node.js)")
