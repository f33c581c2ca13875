"""What nodes publish and say of themselves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from stoker import apps, nodes
from stoker.errors import UnknownApp
from tests.support.job_world import World, endpoint, manifest

pytestmark = pytest.mark.anyio


async def test_publishing_the_same_manifest_again_changes_nothing(world: World) -> None:
    again = await apps.publish(world.db, manifest())

    assert again == world.default
    assert await world.value("SELECT count(*) FROM app_versions") == 1


async def test_many_nodes_that_publish_at_once_publish_one_version(world: World) -> None:
    published = await asyncio.gather(*(apps.publish(world.db, manifest("acme/new")) for _ in range(5)))

    assert len({one.id for one in published}) == 1


async def test_new_texts_and_limits_change_the_version_in_place(world: World) -> None:
    changed = await apps.publish(world.db, manifest("acme/echo", endpoint(run_timeout_s=5.0), title="Better"))

    assert changed.id == world.default.id
    assert (await apps.newest(world.db, "acme/echo")).manifest == changed.manifest
    assert (changed.manifest.title, changed.endpoint("/").run_timeout_s) == ("Better", 5.0)


async def test_new_schemas_make_a_new_version_which_is_the_newest(world: World) -> None:
    newer = await apps.publish(world.db, manifest("acme/echo", endpoint(input_schema={"type": "array"})))

    assert newer.id != world.default.id
    assert await apps.newest(world.db, "acme/echo") == newer
    assert await apps.version(world.db, world.default.id) == world.default


async def test_a_version_that_is_published_again_is_the_newest_again(world: World) -> None:
    await world.set_clock(1)
    newer = await apps.publish(world.db, manifest("acme/echo", endpoint(input_schema={"type": "array"})))
    assert await apps.newest(world.db, "acme/echo") == newer

    await world.set_clock(2)
    await apps.publish(world.db, manifest())

    assert await apps.newest(world.db, "acme/echo") == world.default
    assert [one.version for one in await apps.list_apps(world.db)] == [world.default.hash]


async def test_a_version_that_a_live_node_serves_comes_before_a_newer_one_that_none_does(world: World) -> None:
    await world.set_clock(1)
    newer = await apps.publish(world.db, manifest("acme/echo", endpoint(input_schema={"type": "array"})))
    await world.node("old")
    assert await apps.newest(world.db, "acme/echo") == world.default

    await world.node("new", [newer])
    assert await apps.newest(world.db, "acme/echo") == newer

    await world.set_clock(60)
    assert await apps.newest(world.db, "acme/echo") == newer


async def test_what_nobody_published_is_unknown(world: World) -> None:
    with pytest.raises(UnknownApp):
        await apps.newest(world.db, "acme/nothing")
    with pytest.raises(UnknownApp):
        await apps.version(world.db, UUID(int=1))


async def test_the_list_of_apps_counts_the_live_nodes_of_the_newest_version(world: World) -> None:
    await world.node("n1")
    stopped = await world.node("n2")
    await nodes.set_state(world.db, "n2", stopped.boot_id, "stopped")
    await apps.publish(world.db, manifest("acme/another"))

    listed = await apps.list_apps(world.db)

    assert [(one.app, one.live_nodes) for one in listed] == [("acme/another", 0), ("acme/echo", 1)]
    await world.set_clock(16)
    assert [one.live_nodes for one in await apps.list_apps(world.db)] == [0, 0]


async def test_a_node_is_listed_with_its_runners_and_what_it_runs(world: World) -> None:
    node = await world.node()
    await world.submit()
    await node.take()
    runner = nodes.RunnerInfo("r0", "acme/echo", "quarantined", 2, [0, 1], [11, 12], used_ago_s=5, quarantined_for_s=30)

    await nodes.report_runners(world.db, "n1", node.boot_id, [runner])

    [listed] = await nodes.list_nodes(world.db)
    assert (listed.node_id, listed.state, listed.is_live, listed.running) == ("n1", "ready", True, 1)
    [shown] = listed.runners
    assert listed.apps == ["acme/echo"]
    assert (shown.app, shown.state, shown.slots, shown.pids) == ("acme/echo", "quarantined", [0, 1], [11, 12])
    assert (shown.used_at, shown.quarantined_until) == (
        listed.heartbeat_at - timedelta(seconds=5),
        listed.heartbeat_at + timedelta(seconds=30),
    )
    await nodes.report_runners(world.db, "n1", node.boot_id, [])
    assert (await nodes.list_nodes(world.db))[0].runners == []


async def test_a_former_boot_has_no_say(world: World) -> None:
    node = await world.node()
    former = uuid4()

    await nodes.report_runners(world.db, "n1", former, [nodes.RunnerInfo("r0", "a/b", "warm", 1)])
    await nodes.set_state(world.db, "n1", former, "stopped")

    [listed] = await nodes.list_nodes(world.db)
    assert (listed.state, listed.runners) == ("ready", [])
    assert listed.boot_id == node.boot_id


async def test_a_node_that_registers_again_is_ready_with_what_it_says_now(world: World) -> None:
    node = await world.node()
    await nodes.set_state(world.db, "n1", node.boot_id, "draining")
    info = nodes.NodeInfo("n1", uuid4(), "other-host", 4, [{"name": "H200"}], [], 7, "0.2")

    await nodes.register(world.db, info)

    [listed] = await nodes.list_nodes(world.db)
    assert (listed.state, listed.hostname, listed.slots, listed.gpus) == ("ready", "other-host", 4, [{"name": "H200"}])
    assert (listed.apps, listed.version, listed.boot_id) == ([], "0.2", info.boot_id)
