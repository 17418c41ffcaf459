"""Cuts the file of an open episode at random bytes, and counts what can't be found afterwards."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import time
from pathlib import Path

from vla_ros.benchmarks.options import Options, Result
from vla_ros.policies.packages import packages_for

_SECONDS = 2.0
# A part of the trials ends in zeros instead: a file whose size came to the disk and whose content didn't.
_WITH_ZEROS = 4


def run(options: Options) -> Result:
    """`cut_episodes_lost` and `cut_tail_lost_s_max` over `cut_trials` cuts of MCAP files."""
    with packages_for("cut_trials"):
        from vla_ros.benchmarks.recording.crash_writer import EVENTS, fill, numbers, open_episode
        from vla_ros.recording.bag_writer import storage_path
        from vla_ros.recording.episode import read_info
        from vla_ros.recording.recorder import Recorder, RecorderOptions
        from vla_ros.recording.repair import repair_folder
        from vla_ros.recording.store import EpisodeStore
    trials = options.count(20, 200)
    rng = random.Random(options.seed)
    lost: list[str] = []
    tails_s: list[float] = []
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        folder = Path(name) / "episodes"
        recorder = Recorder(folder, EVENTS, RecorderOptions())
        with open_episode(recorder):
            fill(recorder, None, 0, 0.2)
        marks = []
        with open_episode(recorder):
            part = EpisodeStore(folder).unfinished()[0]
            path = storage_path(part, "mcap")
            end_s = time.monotonic() + _SECONDS
            while time.monotonic() < end_s:
                fill(recorder, None, 1, 0.1)
                # What had been added a second before that size was reached is in front of it.
                marks.append((path.stat().st_size, time.time_ns()))
            copy = Path(name) / "part"
            shutil.copytree(part, copy)
        size = storage_path(copy.with_name(part.name), "mcap").name
        cut_file = copy / size
        total = cut_file.stat().st_size
        finished = _digest(EpisodeStore(folder).episode(0))
        for trial in range(trials):
            options.progress("cuts", trial / trials)
            place = Path(name) / "trial"
            shutil.copytree(EpisodeStore(folder).episode(0), place / "episode_000000")
            shutil.copytree(copy, place / part.name)
            cut = rng.randrange(marks[0][0], total)
            with (place / part.name / size).open("r+b") as file:
                file.truncate(cut)
                if trial % _WITH_ZEROS == 0:
                    file.truncate(cut + rng.randrange(1, 100_000))
            repaired = repair_folder(place)
            if _digest(place / "episode_000000") != finished:
                lost.append(f"trial {trial}: the finished episode changed")
            if len(repaired) != 1 or repaired[0].folder is None or repaired[0].is_left:
                lost.append(f"trial {trial}: {'; '.join(map(str, repaired))}")
            else:
                _, last_ns = numbers(repaired[0].folder)
                # All that was in the file up to the cut: flushing is at most this late.
                last_ns = max(last_ns, read_info(repaired[0].folder).started_ns)
                due_ns = max((stamp_ns for at, stamp_ns in marks if at <= cut), default=0) - 500_000_000
                tails_s.append(max(0.0, (due_ns - last_ns) * 1e-9))
            shutil.rmtree(place)
    figures = {
        "cut_trials": trials,
        "cut_episodes_lost": len(lost),
        "cut_tail_lost_s_max": max(tails_s, default=0.0),
    }
    return Result(figures, {"lost": lost, "file_bytes": total, "tail_lost_s": sorted(tails_s)})


def _digest(folder: Path) -> str:
    """Of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
