"""``stoker demo``, as a person sees it: a real job through the real system, from one command."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import psycopg

from stoker.local import place
from tests.support.processes import Watched
from tests.support.users import as_ordinary_user, give_to_ordinary_user

PNG = b"\x89PNG\r\n\x1a\n"


def demo(
    environ: dict[str, str], data_dir: Path, cwd: Path, *arguments: str, before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "stoker", "demo", *arguments],
        env=environ | {"STOKER_DATA_DIR": str(data_dir), "HF_HUB_OFFLINE": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_killed_half_way_leaves_no_process_and_the_next_one_makes_its_pictures(
    data_dir: Path, own_environ: dict[str, str]
) -> None:
    give_to_ordinary_user(data_dir)
    user = tuple(as_ordinary_user())
    first = demo(own_environ, data_dir, data_dir, before=user)
    assert first.stderr
    for line in first.stderr:  # the job is on its way when its state is drawn
        if line.startswith("running"):
            break
    watched = Watched([first.pid, *(process.pid for process in psutil.Process(first.pid).children(recursive=True))])
    first.kill()
    assert watched.have_ended(within_s=30)

    second = demo(own_environ, data_dir, data_dir, "--exit", before=user)
    written, said = second.communicate(timeout=150)

    assert second.returncode == 0, said
    pictures = list((data_dir / "out").rglob("*.png"))
    assert pictures
    assert all(picture.read_bytes().startswith(PNG) for picture in pictures)
    assert all(str(picture.relative_to(data_dir)) in written for picture in pictures)
    assert "rank 0" in said
    assert "rank 1" in said
    assert place.holder(data_dir) is None


def test_the_demo_says_how_to_go_on_and_stays_until_interrupted(
    data_dir: Path, own_environ: dict[str, str], tmp_path: Path
) -> None:
    run = demo(own_environ, data_dir, tmp_path)
    told = read_until_sql(run)
    watched = Watched([run.pid, *(process.pid for process in psutil.Process(run.pid).children(recursive=True))])

    headers = {"Authorization": f"Key {told['key']}"}
    job_id = told["job"].split()[0]
    job = httpx2.get(f"{told['api']}/v1/jobs/{job_id}", headers=headers).json()
    _, url, _, statement = shlex.split(told["sql"])
    with psycopg.connect(url) as connection:
        row = connection.execute(statement).fetchone()

    assert job["state"] == "succeeded"
    assert row
    assert (str(row[0]), row[2], row[3]) == (job_id, "succeeded", 1)

    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=60) == 0
    assert watched.have_ended(within_s=0)


def read_until_sql(run: subprocess.Popen[str]) -> dict[str, str]:
    """The demo's answer: what it says of each thing, to the last line."""
    told: dict[str, str] = {}
    assert run.stdout
    for line in run.stdout:
        name, value = line.strip().split(maxsplit=1)
        told[name] = value
        if name == "sql":
            return told
    assert run.stderr
    raise AssertionError(run.stderr.read())
