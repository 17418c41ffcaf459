"""Kills a process that records, again and again, and counts what can't be found afterwards."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from vla_ros.benchmarks.options import Options, Result
from vla_ros.errors import RecordingError
from vla_ros.policies.packages import packages_for

_START_S = 30.0
_LONGEST_S = 3.0


def run(options: Options) -> Result:
    """`episodes_lost` and `tail_lost_s_max` over `crash_trials` kills, half of them of each storage."""
    with packages_for("crash_trials"):
        from vla_ros.benchmarks.recording import crash_writer
    trials = options.count(3, 60)
    rng = random.Random(options.seed)
    # Forked from a process that has imported everything: a trial takes the time of its episodes alone.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([crash_writer.__name__])
    lost: list[str] = []
    tails_s: dict[str, list[float]] = {"mcap": [], "sqlite3": []}
    finished = 0
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name:
        for trial in range(trials):
            options.progress("crash", trial / trials)
            storage = ("mcap", "sqlite3")[trial % 2]
            folder, truth_path = Path(name) / f"{trial}", Path(name) / f"{trial}.truth"
            truth = crash_writer.TruthFile(truth_path)
            process = context.Process(
                target=crash_writer.record_for_ever, args=(folder, storage, truth_path, rng.randrange(2**31))
            )
            process.start()
            _wait_for_first(process, truth)
            time.sleep(rng.uniform(0.0, _LONGEST_S))
            process.kill()
            process.join()
            found = judge(folder, truth.read())
            lost += [f"trial {trial}, {storage}: {text}" for text in found["lost"]]
            tails_s[storage].append(found["tail_lost_s"])
            finished += found["finished"]
    figures = {
        "crash_trials": trials,
        "episodes_lost": len(lost),
        "tail_lost_s_max": max(max(values, default=0.0) for values in tails_s.values()),
    }
    details = {
        "finished_episodes": finished,
        "lost": lost,
        "tail_lost_s": {storage: sorted(values) for storage, values in tails_s.items()},
    }
    return Result(figures, details)


def _wait_for_first(process: Any, truth: Any) -> None:
    """Until the first message is added."""
    deadline_s = time.monotonic() + _START_S
    while truth.read().messages == 0:
        if not process.is_alive() or time.monotonic() > deadline_s:
            raise RecordingError(f"the writer of the benchmark doesn't write (exit code {process.exitcode})")
        time.sleep(0.01)


def judge(folder: Path, truth: Any) -> dict[str, Any]:
    """Repairs a folder and holds it against what its writer said.

    Args:
        folder: of episodes.
        truth: a `crash_writer.Truth`.

    Returns:
        `finished`, how many were; `lost`, a sentence each; `tail_lost_s` of the open one.
    """
    from vla_ros.benchmarks.recording.crash_writer import numbers
    from vla_ros.recording.repair import repair_folder
    from vla_ros.recording.store import EpisodeStore
    from vla_ros.recording.validation import validate

    store = EpisodeStore(folder)
    whole = store.finished()
    lost = [f"{path.name}: {error}" for path in whole for error in validate(path).errors if "promises" not in error]
    if len(whole) < truth.finished:
        lost.append(f"{truth.finished} were finished and {len(whole)} are there")
    for path in whole:
        found, _ = numbers(path)
        if found != list(range(len(found))) or not found:
            lost.append(f"{path.name}: messages are missing")
    repair_folder(folder)
    tail_s = 0.0
    if truth.messages and len(whole) == truth.finished:
        found, last_ns = [], 0
        try:
            found, last_ns = numbers(store.episode(truth.finished))
        except RecordingError as error:
            lost.append(f"the open episode: {error}")
        if found != list(range(len(found))):
            lost.append("the open episode: messages are missing before its end")
        tail_s = (truth.stamp_ns - last_ns) * 1e-9 if found else float(truth.messages) * 0.004
    return {"finished": truth.finished, "lost": lost, "tail_lost_s": tail_s}
