"""The README's commands, typed as they stand there, by somebody who has run './run setup'."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.local import place
from stoker.local.background import down

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^<!-- (?P<mark>[^\n]+) -->\n```\w+\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.timeout(300)  # each starts a stack with a model in two processes
PNG = b"\x89PNG\r\n\x1a\n"


def blocks(mark: str) -> list[str]:
    found = [block["code"] for block in BLOCK.finditer(README) if block["mark"] == mark]
    assert found
    return found


@pytest.fixture
def folder(data_dir: Path) -> Iterator[Path]:
    """A folder with the project's environment in it, whose stack ends with the test."""
    (data_dir / ".venv").symlink_to(Path(sys.prefix))
    yield data_dir
    if (data_dir / ".stoker").exists():
        down(data_dir / ".stoker")
        place.discard(data_dir / ".stoker")


def type_in(commands: list[str], folder: Path, environ: dict[str, str]) -> str:
    """What a shell answers to ``commands``, which must all succeed."""
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
        cwd=folder,
        env=environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    return ended.stdout


def test_the_tour_goes_as_the_readme_says(folder: Path, own_environ: dict[str, str]):
    answers = type_in(blocks("run"), folder, own_environ)

    assert "event: state\nid: 1.0.0" in answers
    assert '"state":"succeeded"' in answers
    assert len([path for path in (folder / "out").glob("*/*") if path.read_bytes().startswith(PNG)]) >= 3
    assert "gpu_seconds" in answers
    assert "the stack is down" in answers


def test_the_app_of_the_readme_runs_as_it_stands_there(folder: Path, own_environ: dict[str, str]):
    (code,) = blocks("app: gradient.py")
    (folder / "gradient.py").write_text(code)

    answers = type_in(blocks("run app"), folder, own_environ)

    (picture,) = (folder / "out").glob("*/*")
    assert picture.read_bytes().startswith(PNG)
    assert str(picture.relative_to(folder)) in answers
