"""What a process really loads when it imports a part: contracts read the source, this asks the interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "diffusers", "transformers", "zmq", "numpy", "PIL"}
ENGINES = {"sqlalchemy", "psycopg", "redis", "celery", "kombu", "boto3", "botocore", "alembic"}
WEB = {"fastapi", "starlette", "uvicorn"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("stoker", HEAVY | ENGINES | WEB | {"typer", "httpx2"}),
        ("stoker.client", HEAVY | ENGINES | WEB | {"typer", "rich", "structlog", "pydantic_settings"}),
        ("stoker.cli", HEAVY | ENGINES | WEB),
        ("stoker.jobs", HEAVY | WEB),
        ("api", HEAVY),
        ("api.app", HEAVY),
        ("migrations", HEAVY | WEB),
        ("worker_node", HEAVY | WEB),
        ("worker_node.consumer", WEB | {"torch", "diffusers", "transformers"}),
        ("worker_node.executor", WEB | {"torch", "diffusers", "transformers"}),
        ("worker_node.distributed", ENGINES | WEB),
    ],
)
def test_importing_a_part_loads_none_of_what_it_must_not_need(module: str, unwanted: set[str]):
    assert loaded_by(f"import {module}") & unwanted == set()


def test_the_client_works_where_httpx2_and_pydantic_are_all_that_is_installed():
    blocked = sorted(
        HEAVY | ENGINES | WEB | {"typer", "rich", "structlog", "orjson", "pydantic_settings", "jsonschema"}
    )
    script = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nfrom stoker.client import Client\n"

    loaded_by(script + "Client('http://127.0.0.1:1', 'a:b').close()")


def loaded_by(script: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after ``script``."""
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{script}\nimport json, sys\nprint(json.dumps([n for n in sys.modules if sys.modules[n]]))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return {name.partition(".")[0] for name in json.loads(ended.stdout)}
