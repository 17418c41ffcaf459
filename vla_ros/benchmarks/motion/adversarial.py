"""The whole core path under whatever may arrive, judged by its joint commands alone.

The path of an episode is what the executable `motion` makes of one: states, filter and controller, stepped with the
nominal times of their ticks. An episode is named by its seed, which draws the robot too.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from typing import Any

import numpy as np

from vla_ros.benchmarks.motion.arms import robot_names
from vla_ros.benchmarks.motion.episode import EPISODE_TICKS, Episode, judge_episode
from vla_ros.benchmarks.options import Options, Result

_SHOWN_FAILURES = 5
_EPISODES_A_PIECE = 4


def run(options: Options) -> Result:
    """As many ticks as asked for, in episodes over all robots, on two processes."""
    ticks = options.count(12_000, 1_000_000)
    robots = robot_names()
    episodes = max(1, -(-ticks // EPISODE_TICKS))
    lengths = [min(EPISODE_TICKS, ticks - number * EPISODE_TICKS) for number in range(episodes)]
    given = [
        ([(options.seed + number, lengths[number]) for number in range(first, min(first + size, episodes))], robots)
        for size in [_EPISODES_A_PIECE if not options.is_quick else 1]
        for first in range(0, episodes, size)
    ]
    start_s = time.monotonic()
    found = options.pool.spread(run_episodes, given, lambda part: options.progress("adversarial", part))
    wall_s = time.monotonic() - start_s
    total: Counter[str] = Counter()
    by_robot: dict[str, Counter[str]] = {}
    failures: list[dict[str, Any]] = []
    cpu_s = 0.0
    for piece in found:
        for episode in piece:
            total.update(episode["counts"])
            by_robot.setdefault(episode["robot"], Counter()).update(episode["counts"])
            failures += episode["failures"]
            cpu_s += episode["cpu_s"]
    figures = {
        "adversarial_ticks": total["ticks"],
        "violations": total["violations"] + total["not_finite"] + total["exceptions"],
    }
    details = {
        "ticks_per_s": total["ticks"] / wall_s,
        "us_a_tick": 1e6 * cpu_s / max(1, total["ticks"]),
        "counts": dict(sorted(total.items())),
        "robots": {name: dict(sorted(counts.items())) for name, counts in sorted(by_robot.items())},
        "failures": failures[:_SHOWN_FAILURES],
    }
    problems = tuple(_sentence(failure) for failure in failures[:_SHOWN_FAILURES])
    return Result(figures, details, {}, problems)


def run_episodes(given: tuple[list[tuple[int, int]], tuple[str, ...]]) -> list[dict[str, Any]]:
    """Some episodes.

    Args:
        given: seed and ticks of each, and the robots to draw from.
    """
    return [run_episode(seed, ticks, given[1]) for seed, ticks in given[0]]


def run_episode(seed: int, ticks: int, robots: tuple[str, ...]) -> dict[str, Any]:
    """One episode: what was counted, and what failed with how to see it again."""
    robot = robots[seed % len(robots)]
    start_s = time.process_time()
    episode = Episode(robot, seed)
    counts: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    try:
        with np.errstate(all="ignore"):  # What isn't finite is counted below, once.
            for _ in range(ticks):
                episode.tick()
    except Exception as error:
        counts["exceptions"] += 1
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} at {where.filename.rsplit('vla_ros/', 1)[-1]}:{where.lineno}"
        failures.append({"robot": robot, "seed": seed, "tick": len(episode.sent), "what": text})
    verdict = judge_episode(episode)
    counts.update(episode.counts)
    counts["ticks"] += len(episode.sent)
    counts["violations"] += verdict.violations
    counts["not_finite"] += verdict.not_finite
    if verdict.first is not None:
        failures.append({"robot": robot, "seed": seed, "tick": verdict.first_tick, "what": verdict.first})
    return {"robot": robot, "counts": counts, "failures": failures, "cpu_s": time.process_time() - start_s}


def _sentence(failure: dict[str, Any]) -> str:
    return (
        f"{failure['robot']}, tick {failure['tick']}: {failure['what']}; again: vla-ros bench motion "
        f"--only adversarial --seed {failure['seed']} --ticks {EPISODE_TICKS}"
    )
