"""The part of an attempt's log that is in no row, while it is on the node."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker_node.log_file import Spill

pytestmark = pytest.mark.anyio


async def test_lines_stand_in_the_file_in_order_with_their_rank_and_what_the_app_added(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "new" / "log.txt")

    spill.add({"rank": 1, "attempt": 1, "message": "first", "loss": 0.5})
    await spill.write()
    spill.add({"rank": None, "attempt": 1, "message": "half a pair: \ud800"})
    await spill.write()

    first, second = spill.path.read_text().splitlines()
    assert first.endswith('Z rank 1 first {"loss": 0.5}')
    assert second.endswith("Z half a pair: \\ud800")
    assert (spill.lines, spill.dropped_lines) == (2, 0)


async def test_what_goes_beyond_the_file_s_bound_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker_node.log_file.MAX_BYTES", 1000)
    spill = Spill(tmp_path / "log.txt")

    for _ in range(50):
        spill.add({"message": "x" * 60})
    spill.add({"message": "short, and later than what was dropped"})
    await spill.write()

    assert spill.path.stat().st_size <= 1000
    assert len(spill.path.read_text().splitlines()) == spill.lines
    assert spill.lines > 5
    assert spill.lines + spill.dropped_lines == 51
    assert "short" not in spill.path.read_text()


async def test_a_disk_that_takes_no_more_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    spill = Spill(tmp_path / "taken" / "log.txt")

    spill.add({"message": "one"})
    await spill.write()
    spill.add({"message": "two"})
    await spill.write()

    assert (spill.lines, spill.dropped_lines) == (0, 2)
