"""Rules of the house that no linter knows: sizes, names, where the environment is read, what may not be mentioned."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.crash_points import Point

ROOT = Path(__file__).parents[2]
PACKAGES = ("stoker", "api", "worker_node", "migrations", "examples")
MAX_LINES = 400
FORBIDDEN_NAMES = {"utils", "util", "common", "services", "managers", "manager", "helpers", "misc", "base"}
# Entry points, what starts processes with an environment of its own making, and what libraries read or are told there.
READS_ENVIRONMENT = re.compile(
    r"""
    .*/__main__\.py | .*/__init__\.py
    | api/(app|control/.*)\.py | migrations/.*\.py
    | stoker/(ready|settings)\.py | stoker/(cli|local)/.*\.py
    | worker_node/apphost/.*\.py | worker_node/host\.py | worker_node/(gpus|diffusion/quiet)\.py
    | worker_node/distributed/.*\.py | worker_node/models/.*\.py
    | examples/.*\.py
    """,
    re.VERBOSE,
)


def tracked() -> list[Path]:
    """Files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def sources() -> Iterator[Path]:
    """The modules of our packages."""
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES:
            yield path


def test_no_module_is_longer_than_one_sitting():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked()
        if path.suffix == ".py" and path.parent.name != "versions"
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }

    assert long == {}


def test_no_module_is_named_after_nothing():
    vague = [
        str(path.relative_to(ROOT))
        for path in sources()
        if FORBIDDEN_NAMES & {*path.relative_to(ROOT).parts[:-1], path.stem}
    ]

    assert vague == []


def test_every_module_says_first_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.parent.name != "versions"
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert silent == []


def test_the_environment_is_read_at_entry_points_alone():
    readers = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        if not READS_ENVIRONMENT.fullmatch(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    ]

    assert readers == []


def test_settings_are_loaded_at_entry_points_alone():
    loaders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        if not READS_ENVIRONMENT.fullmatch(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and re.fullmatch(r"(\w+\.)?\w*Settings\.load", ast.unparse(node.func))
    ]

    assert loaders == []


def test_every_crash_point_is_reached_by_its_part_and_armed_by_entry_points_alone():
    homes = {"api": {"api"}, "control": {"api"}, "node": {"worker_node"}}
    reached: dict[str, set[str]] = {}
    armers = []
    for path in sources():
        place = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "reach":
                reached.setdefault(ast.unparse(node.args[0]).removeprefix("Point."), set()).add(place.parts[0])
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "crash_points.arm":
                armers.append(str(place))

    assert reached == {point.name: homes[point.part] for point in Point}
    assert sorted(armers) == ["api/__main__.py", "api/control/__main__.py", "worker_node/__main__.py"]


def test_nothing_mentions_the_machine_it_was_written_on():
    # A folder that every machine has may well be spoken of.
    everywhere = {Path(name) for name in ("/", "/tmp", "/var/tmp", "/root", "/home", "/opt", "/srv", "/usr/src")}
    own = [folder for folder in (ROOT, ROOT.parent, Path.home()) if folder not in everywhere]
    home = re.compile("|".join(re.escape(f"{folder}/") for folder in own))
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match}" for match in home.findall(text)]

    assert found == []


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("stoker", {"App", "File", "Image", "endpoint"}),
        (
            "stoker.client",
            {
                "AppInfo",
                "Client",
                "Job",
                "JobPage",
                "JobProblem",
                "JobSummary",
                "JobsEvent",
                "Output",
                "StreamedEvent",
                "Unreachable",
                "UploadedFile",
            },
        ),
        (
            "worker_node.distributed",
            {
                "AlreadyRunning",
                "CallCancelled",
                "CallTimeout",
                "DistributedRunner",
                "DistributedWorker",
                "InvalidImageFormat",
                "InvalidWorker",
                "NotRunning",
                "PoolBroken",
                "RankDied",
                "RankError",
                "RankEvent",
                "RankFailed",
                "RankLog",
                "RankState",
                "RankStatus",
                "RunnerError",
                "RunnerState",
                "RunnerStatus",
                "SerializationFailed",
                "SetupFailed",
                "SpawnFailed",
                "StartTimeout",
                "TooManyWaiting",
            },
        ),
    ],
)
def test_a_name_becomes_public_on_purpose(module: str, names: set[str]):
    path = ROOT.joinpath(*module.split("."), "__init__.py")
    exported = next(
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )

    assert set(exported) == names
