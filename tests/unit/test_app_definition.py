"""Apps: mistakes fail when the class is defined, and the manifest is what callers depend on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel

from stoker import App, File, Image, endpoint
from stoker.app import current_call
from stoker.errors import AppDefinitionError, AppError, InvalidFile
from stoker.manifest import Manifest
from stoker.validation import validate
from worker_node.distributed import DistributedWorker


class Request(BaseModel):
    text: str = Field(max_length=5)
    file: File | None = None


class Answer(BaseModel):
    image: Image


class Numbers(RootModel[list[int]]):
    pass


class Worker(DistributedWorker):
    pass


async def serve(self: App, request: Request) -> Answer:
    """Answer in one line.

    And explain in more.
    """
    raise NotImplementedError


async def serve_elsewhere(self: App, request: Request) -> dict[str, Any]:
    return {}


async def without_model(self: App, request: dict[str, Any]) -> Answer:
    raise NotImplementedError


async def without_annotation(self, request):
    raise NotImplementedError


async def with_two(self: App, request: Request, other: Request) -> Answer:
    raise NotImplementedError


async def with_list(self: App, request: Numbers) -> Answer:
    raise NotImplementedError


async def returning_list(self: App, request: Request) -> list[int]:
    return []


async def returning_file(self: App, request: Request) -> File:
    return File()


async def with_unknown(self: App, request: Unknown) -> Answer:  # noqa: F821 - the mistake under test
    raise NotImplementedError


def not_async(self: App, request: Request) -> Answer:
    raise NotImplementedError


def define(**members: Any) -> type[App]:
    """An app class as a module would define it; a member that is None is left out."""
    if "serve" not in members:
        members["serve"] = endpoint("/")(serve)
    members = {"name": "acme/thing", **members}
    return type("Thing", (App,), {name: value for name, value in members.items() if value is not None})


def local_worker() -> type:
    class Local(DistributedWorker):
        pass

    return Local


MISTAKES: dict[str, Callable[[], object]] = {
    "has no name": lambda: define(name=None),
    "cannot be an app's name": lambda: define(name="Acme thing"),
    "is not an async method": lambda: define(serve=endpoint("/")(not_async)),
    "needs one parameter, annotated": lambda: define(serve=endpoint("/")(without_model)),
    "_annotation needs one parameter": lambda: define(without_annotation=endpoint("/")(without_annotation), serve=None),
    "_two needs one parameter": lambda: define(with_two=endpoint("/")(with_two), serve=None),
    "_list needs one parameter": lambda: define(with_list=endpoint("/")(with_list), serve=None),
    "cannot return list": lambda: define(serve=endpoint("/")(returning_list)),
    "cannot return .*File": lambda: define(serve=endpoint("/")(returning_file)),
    "name something unknown": lambda: define(serve=endpoint("/")(with_unknown)),
    "has no endpoint": lambda: define(serve=None),
    "the path / is taken": lambda: define(other=endpoint("/")(serve_elsewhere)),
    "has a worker but no num_gpus": lambda: define(worker=Worker),
    "wants 2 GPUs but has no worker": lambda: define(num_gpus=2),
    "defined inside a function": lambda: define(worker=local_worker(), num_gpus=1),
    "cannot be a worker": lambda: define(worker=3, num_gpus=1),
    "worker is 'no colon'": lambda: define(worker="no colon", num_gpus=1),
    "defines run, which belongs to App": lambda: define(run=serve),
    "setup_args is": lambda: define(setup_args=["model"]),
    "keep_alive is": lambda: define(keep_alive=-1),
    "keep_outputs is 0": lambda: define(keep_outputs=0),
    "store_io is 'no'": lambda: define(store_io="no"),
    "max_multiplexing is": lambda: define(max_multiplexing=0),
    "'train' cannot be the path": lambda: endpoint("train"),
    "endpoint needs a path": lambda: endpoint(serve),
    "kind is 'batch'": lambda: endpoint("/", kind="batch"),
    "run_timeout is 0": lambda: endpoint("/", run_timeout=0),
    "max_attempts is 0": lambda: endpoint("/", max_attempts=0),
    "num_gpus is 3": lambda: endpoint("/", num_gpus=3),
}


@pytest.mark.parametrize("says", MISTAKES)
def test_a_mistake_in_an_app_fails_when_the_class_is_defined(says: str) -> None:
    with pytest.raises(AppDefinitionError, match=says) as caught:
        MISTAKES[says]()

    assert caught.value.hint


def test_a_manifest_tells_callers_all_that_they_may_know() -> None:
    app = define(
        worker=Worker,
        num_gpus=2,
        serve=endpoint("/", kind="training", stall_timeout=60, max_attempts=3)(serve),
        light=endpoint("/light", num_gpus=0)(serve_elsewhere),
    )

    manifest = app.manifest()
    first, light = manifest.endpoints

    assert (manifest.app, manifest.title, manifest.num_gpus) == ("acme/thing", "Thing", 2)
    assert (first.path, first.kind, first.uses_gpus, first.max_attempts) == ("/", "training", True, 3)
    assert (first.run_timeout_s, first.stall_timeout_s, first.start_timeout_s) == (86400.0, 60, None)
    assert first.summary == "Answer in one line."
    assert (light.uses_gpus, light.run_timeout_s, light.output_schema) == (False, 600.0, {})
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_hash_names_what_a_request_depends_on_and_nothing_else() -> None:
    plain = define().manifest().schema_hash

    assert define(title="Another", description="words").manifest().schema_hash == plain
    assert define(serve=endpoint("/", run_timeout=5)(serve)).manifest().schema_hash == plain
    assert define(serve=endpoint("/other")(serve)).manifest().schema_hash != plain
    assert define(serve=endpoint("/")(serve_elsewhere)).manifest().schema_hash != plain
    assert define(worker=Worker, num_gpus=1).manifest().schema_hash != plain


def test_the_hash_is_the_same_in_every_process() -> None:
    code = "from worker_node.apps.text_to_image import TextToImage as T; print(T.manifest().schema_hash)"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }

    assert len(seen) == 1


def test_a_file_of_an_input_may_be_a_text_or_an_object_but_not_empty() -> None:
    schema = define().manifest().endpoints[0].input_schema

    for file in ("file_1", {"url": "https://example.org/a.png"}, {"url": "file_1", "content_type": "image/png"}, None):
        validate(schema, {"text": "short", "file": file})
    for file in ("", {}, {"url": ""}, 3, ["file_1"]):
        with pytest.raises(Exception, match="breaks the app's schema"):
            validate(schema, {"text": "short", "file": file})


def test_writing_an_app_imports_neither_engines_nor_tensors() -> None:
    code = (
        "import sys; from stoker import App, File, Image, endpoint;"
        "import worker_node.apps.text_to_image;"
        "heavy = 'torch numpy PIL diffusers sqlalchemy redis celery boto3 fastapi structlog'.split();"
        "print([name for name in heavy if name in sys.modules])"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


async def test_run_and_progress_outside_of_a_job_say_where_they_belong(anyio_backend: str) -> None:
    app = define()()

    with pytest.raises(AppError, match="belong to a job") as caught:
        app.progress(step=1)

    assert "inside an endpoint" in caught.value.hint
    with pytest.raises(AppError):
        await app.run({})


async def test_a_request_reaches_the_ranks_as_plain_values_with_files_as_paths(
    anyio_backend: str, tmp_path: Any
) -> None:
    class Call:
        async def run(self, payload: Any) -> Any:
            return payload

    path = tmp_path / "picture.png"
    path.write_bytes(b"")
    token = current_call.set(Call())  # type: ignore[arg-type]  # run is all that is asked of it here
    try:
        payload = await define()().run(Request(text="word", file=File.from_path(path)), seed=3)
    finally:
        current_call.reset(token)

    assert payload == {"text": "word", "file": path, "seed": 3}
    with pytest.raises(InvalidFile, match="was not fetched"):
        _ = File(url="file_1").path
