"""Options that several commands share, and the client that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stoker.cli.address import find_api
from stoker.client import Client

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
ApiUrl = Annotated[
    str | None, typer.Option("--api-url", help="Default: STOKER_API_URL, else the local stack.", metavar="URL")
]
ApiKey = Annotated[
    str | None, typer.Option("--api-key", help="Default: STOKER_API_KEY, else the local stack's.", metavar="KEY")
]
SaveTo = Annotated[
    Path | None, typer.Option("--out", "-o", help="Save the outputs in FOLDER/<job id>/.", metavar="FOLDER")
]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


def connect(api_url: str | None, api_key: str | None) -> Client:
    """A client for the API that the options, the environment or the local stack name."""
    address = find_api(api_url, api_key)
    return Client(address.api_url, address.api_key)
