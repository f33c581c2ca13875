"""Calls of endpoints through an app host: events, results, errors, files in and out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from PIL import Image as Pil

from stoker.errors import AppError, InvalidFile, InvalidInput, StorageUnavailable
from stoker.events import EventKind
from tests.integration.host.conftest import Hosted, Serve

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def plain_host(shared: Serve) -> Hosted:
    return await shared("Plain")


@pytest.fixture
def plain(plain_host: Hosted) -> Hosted:
    """An app without ranks, with no memory of other tests."""
    plain_host.forget()
    return plain_host


async def test_a_call_gives_its_result_after_its_events_in_order(plain: Hosted) -> None:
    result = await plain.call(what="hello")

    assert result.result == {"what": "hello", "number": 3, "ready": True}
    assert [(event.kind, event.data) for event in plain.events] == [
        (EventKind.PROGRESS, {"step": 1, "total": 2, "loss": None}),
        (EventKind.LOG, {"message": "half-way"}),
        (EventKind.PROGRESS, {"step": 2, "total": 2}),
    ]
    assert not result.files


async def test_an_event_beyond_the_limit_is_left_out_even_if_the_app_wrote_it_to_the_socket(plain: Hosted) -> None:
    await plain.call("/large-event")

    told, forged = (event.data for event in plain.events)
    assert (told["step"], "left out" in told["message"]) == (1, True)
    assert list(forged) == ["message"]


async def test_two_calls_at_once_keep_their_events_and_results_apart(plain: Hosted, tmp_path: Path) -> None:
    signal = tmp_path / "go"

    first = asyncio.create_task(plain.call("/wait", what="first", path=str(signal)))
    second = asyncio.create_task(plain.call("/wait", what="second", path=str(signal)))
    await plain.until(lambda: len(plain.events) == 2)
    signal.touch()

    assert [(await call).result["what"] for call in (first, second)] == ["first", "second"]
    assert sorted(event.data.get("done", "") for event in plain.events) == ["", "", "first", "second"]


async def test_an_app_takes_as_many_calls_at_a_time_as_it_says(plain: Hosted, tmp_path: Path) -> None:
    signal, most = tmp_path / "go", 12
    calls = []

    for number in range(most):
        assert plain.host.can_start(uses_gpus=False)
        calls.append(asyncio.create_task(plain.call("/wait", what=str(number), path=str(signal))))
        await plain.until(lambda expected=number + 1: len(plain.events) == expected)
    signal.touch()

    assert [(await call).result["what"] for call in calls] == [str(number) for number in range(most)]
    assert plain.host.loading.max_multiplexing == most


async def test_an_input_that_breaks_the_request_model_never_reaches_the_endpoint(plain: Hosted) -> None:
    with pytest.raises(InvalidInput) as caught:
        await plain.call(number=1000)

    assert caught.value.errors == [
        {"loc": ["number"], "msg": "Input should be less than or equal to 100", "type": "less_than_equal"}
    ]
    assert plain.events == []


async def test_a_result_that_breaks_the_response_model_names_the_place(plain: Hosted) -> None:
    right = await plain.call("/typed", what="right")
    with pytest.raises(AppError, match="breaks Answer: /number"):
        await plain.call("/typed", what="words")

    assert right.result == {"number": 3}


@pytest.mark.parametrize("what", ["object", "bytes", "nan", "gone", "nul"])
async def test_a_result_that_is_not_json_names_the_place(plain: Hosted, what: str) -> None:
    with pytest.raises(AppError, match="/inner/0/value"):
        await plain.call("/bad", what=what)


async def test_an_exception_of_the_app_arrives_with_type_message_and_its_own_traceback(plain: Hosted) -> None:
    with pytest.raises(AppError, match="ValueError: my own words") as caught:
        await plain.call("/raise")

    assert caught.value.type_name == "ValueError"
    assert 'raise ValueError("my own words")' in caught.value.traceback
    assert "apphost" not in caught.value.traceback


async def test_an_exception_whose_own_text_raises_still_ends_its_call(plain: Hosted) -> None:
    with pytest.raises(AppError, match="RuntimeError") as caught:
        await plain.call("/raise", what="mute")

    assert caught.value.type_name == "Mute"


async def test_mistakes_that_an_app_describes_with_odd_values_arrive_as_text(plain: Hosted) -> None:
    with pytest.raises(InvalidInput, match="odd") as caught:
        await plain.call("/raise", what="objects")

    first, second, third = caught.value.errors
    assert (first["loc"][1], first["msg"], first["type"]) == (1, "no", "value_error")
    assert "object" in second["msg"]
    assert third["msg"] == str(2**70)


async def test_a_call_that_fails_after_it_made_files_leaves_none_in_the_spool(plain: Hosted) -> None:
    with pytest.raises(AppError, match="/value"):
        await plain.call("/files-then-bad", call_id="litter")

    assert not (plain.host.spec.spool / "calls" / "litter").exists()


async def test_sys_exit_in_an_endpoint_is_an_error_of_the_call_alone(plain: Hosted) -> None:
    pid = plain.host.status.pid

    with pytest.raises(AppError, match=r"sys\.exit\(3\)"):
        await plain.call("/raise", what="exit")

    assert (await plain.call(what="still here")).result["what"] == "still here"
    assert plain.host.status.pid == pid


async def test_an_app_may_refuse_an_input_itself(plain: Hosted) -> None:
    with pytest.raises(InvalidInput, match="that does not fit") as caught:
        await plain.call("/raise", what="invalid")

    assert caught.value.errors[0]["loc"] == ["what"]


async def test_files_of_an_input_are_fetched_before_the_endpoint_runs(plain: Hosted, tmp_path: Path) -> None:
    async def fetch(url: str) -> Path:
        path = tmp_path / url.removeprefix("file_")
        path.write_text(f"content of {url}")
        return path

    plain.fetch = fetch
    result = await plain.call("/read", file="file_1", more=["file_2", {"url": "file_3"}])

    assert result.result["contents"] == [f"content of file_{number}" for number in (1, 2, 3)]
    assert plain.fetched == ["file_1", "file_2", "file_3"]


async def test_what_stops_a_fetch_is_what_the_call_raises(plain: Hosted) -> None:
    async def refuse(url: str) -> Path:
        raise StorageUnavailable("the object store is away")

    plain.fetch = refuse
    with pytest.raises(StorageUnavailable):
        await plain.call("/read", file="file_1")
    with pytest.raises(InvalidFile, match="no url"):
        await plain.call("/read", file={})


async def test_files_of_a_result_lie_in_the_spool_with_their_place_and_their_own_fields(plain: Hosted) -> None:
    result = await plain.call("/files")

    first, second, text = result.files
    assert [each.pointer for each in result.files] == ["/pictures/0", "/pictures/1", "/text"]
    assert first.metadata == {"width": 8, "height": 6, "seed": 41}
    assert second.metadata["seed"] == 42
    assert (first.content_type, Pil.open(first.path).format) == ("image/webp", "WEBP")
    assert (text.file_name, text.content_type, text.path.read_text()) == ("a-text.txt", "text/plain", "written")
    assert all(each.path.is_relative_to(result.folder) for each in result.files)
    assert result.result["pictures"][0] == {
        "url": "",
        "content_type": "image/webp",
        "file_name": first.file_name,
        "file_size": first.path.stat().st_size,
        "width": 8,
        "height": 6,
        "seed": 41,
    }
    assert result.result["link"]["url"] == "https://example.org/elsewhere"
    assert result.result["nothing"] is None


async def test_the_environment_of_an_app_opens_no_engine(serve: Serve) -> None:
    secrets = {"DATABASE_URL": "a", "REDIS_URL": "b", "S3_SECRET_ACCESS_KEY": "c", "STOKER_ADMIN_KEY": "d"}
    plain = await serve("Plain", **secrets, STOKER_DATA_DIR="kept", HF_TOKEN="kept")

    seen = (await plain.call("/environment")).result

    assert not secrets.keys() & seen.keys()
    assert (seen["STOKER_DATA_DIR"], seen["HF_TOKEN"]) == ("kept", "kept")
