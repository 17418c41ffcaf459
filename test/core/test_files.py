"""Folders that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vla_ros.config import package_share
from vla_ros.files import whole_folder

ENDLESS = """
import sys, time
from pathlib import Path
from vla_ros.files import whole_folder
place = Path(sys.argv[1])
for n in range(1_000_000):
    with whole_folder(place) as partial:
        (partial / "a").write_text(str(n))
        time.sleep(0.001)
        (partial / "b").write_text(str(n))
    print(n, flush=True)
"""


def test_a_folder_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder"
    for names in (("a", "b"), ("b",)):
        with whole_folder(place) as partial:
            assert list(partial.iterdir()) == []
            for name in names:
                (partial / name).write_text(name)
        assert sorted(path.name for path in place.iterdir()) == sorted(names)
    assert [path.name for path in place.parent.iterdir()] == ["folder"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "folder"
    with whole_folder(place) as partial:
        (partial / "a").write_text("old")

    def fail() -> None:
        with whole_folder(place) as partial:
            (partial / "a").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert (place / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_killed_writer_leaves_a_whole_folder_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "folder")]
    for attempt in range(4):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=package_share(), text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3):
                writer.stdout.readline()
            time.sleep(0.003 * attempt)
            os.kill(writer.pid, signal.SIGKILL)
        place = tmp_path / "folder"
        if place.exists():
            assert (place / "a").read_text() == (place / "b").read_text()


def test_files_of_a_folder_are_as_readable_as_it_is(tmp_path: Path) -> None:
    secret = tmp_path / "another"
    secret.write_text("not ours")
    secret.chmod(0o600)
    with whole_folder(tmp_path / "checkpoint") as partial:
        partial.chmod(0o750)
        (partial / "weights").write_bytes(b"0")
        (partial / "weights").chmod(0o600)
        (partial / "link").symlink_to(secret)
    assert (tmp_path / "checkpoint" / "weights").stat().st_mode & 0o777 == 0o640
    assert secret.stat().st_mode & 0o777 == 0o600
