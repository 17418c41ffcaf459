"""A stop survives what stopped, and nothing but a reset ends it."""

from __future__ import annotations

from pathlib import Path

from vla_ros.safety.latch import StopLatch


def test_stop_is_found_by_the_next_process_until_it_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "state" / "stop"
    assert StopLatch(path).read() is None
    StopLatch(path).set("safety/stop was called")
    assert StopLatch(path).read() == "safety/stop was called"
    StopLatch(path).clear()
    StopLatch(path).clear()
    assert StopLatch(path).read() is None


def test_stop_that_cannot_be_read_counts(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert StopLatch(tmp_path / "empty").read() == "stopped"
    (tmp_path / "garbage").write_bytes(b"\xff\xfe\xff")
    assert "can't be read" in (StopLatch(tmp_path / "garbage").read() or "")
    assert "can't be read" in (StopLatch(tmp_path).read() or "")  # a folder
