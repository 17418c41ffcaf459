"""The figures of an evaluation by suite, each rate with its interval, as plain data for a JSON file."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from vla_ros.evaluation.comparison import PairedOutcomes
from vla_ros.evaluation.figures import EpisodeFigures
from vla_ros.evaluation.metrics import wilson_interval
from vla_ros.evaluation.task_suites import HELD_OUT, SWAPPED

_CHUNK_KEYS = ("sent", "late", "refused", "unseen", "failed")


def rate(successes: int, trials: int) -> dict[str, Any]:
    """A rate with its 95 % Wilson interval; null without trials."""
    return {
        "successes": successes,
        "episodes": trials,
        "success_rate": successes / trials if trials else None,
        "success_interval": list(wilson_interval(successes, trials)),
    }


def summarise_suite(episodes: Sequence[EpisodeFigures]) -> dict[str, Any]:
    """The figures of one policy in one suite, or in all of them.

    `language_sensitivity` is the share of scenes in which, told either of two objects in two attempts, the policy did
    what it was told in both. `wrong_object_rate` is the share of those attempts in which it did with one object what it
    had been told to do with the other. `right_object_rate` leaves out those in which it did neither: which of the two
    it was, where it was one.
    """
    plain = [episode for episode in episodes if not episode.variant]
    summary = {**rate(sum(episode.is_success for episode in plain), len(plain)), **_figures(plain)}
    swapped = {episode.scene: episode for episode in episodes if episode.variant == SWAPPED}
    if swapped:
        both = [
            episode.is_success and swapped[episode.scene].is_success for episode in plain if episode.scene in swapped
        ]
        pairs = [episode for episode in plain if episode.scene in swapped] + list(swapped.values())
        wrong = sum(episode.did_other for episode in pairs)
        right = sum(episode.is_success and not episode.did_other for episode in pairs)
        summary |= {
            "language_sensitivity": sum(both) / len(both),
            "language_sensitivity_interval": list(wilson_interval(sum(both), len(both))),
            "wrong_object_rate": wrong / len(pairs),
            "right_object_rate": right / (right + wrong) if right + wrong else None,
            "right_object_interval": list(wilson_interval(right, right + wrong)),
        }
    held_out = [episode for episode in episodes if episode.variant == HELD_OUT]
    if held_out:
        paired = PairedOutcomes.of(_successes(held_out), _successes(plain))
        summary["held_out"] = {
            **rate(sum(one.is_success for one in held_out), len(held_out)),
            "against_known": paired.plain(),
        }
    return summary


def by_suite(episodes: Iterable[EpisodeFigures]) -> dict[str, list[EpisodeFigures]]:
    """The episodes of each suite, in the order in which they come first."""
    found: dict[str, list[EpisodeFigures]] = {}
    for episode in episodes:
        found.setdefault(episode.suite, []).append(episode)
    return found


def compare(a: Sequence[EpisodeFigures], b: Sequence[EpisodeFigures]) -> PairedOutcomes:
    """Two policies at the same attempts."""
    return PairedOutcomes.of(
        {episode.key: episode.is_success for episode in a}, {episode.key: episode.is_success for episode in b}
    )


def _successes(episodes: Sequence[EpisodeFigures]) -> dict[tuple[str, int], bool]:
    return {episode.scene: episode.is_success for episode in episodes}


def _figures(episodes: Sequence[EpisodeFigures]) -> dict[str, Any]:
    done = [episode for episode in episodes if episode.is_success]
    hits: Counter[str] = Counter()
    for episode in episodes:
        hits.update(episode.limit_hits)
    return {
        "time_s": _median(episode.time_s for episode in done),
        "path_length_m": _median(episode.path_length_m for episode in done),
        "jerk_rms_rad_s3": _median(episode.jerk_rms_rad_s3 for episode in episodes),
        "jerk_max_rad_s3": max((episode.jerk_max_rad_s3 for episode in episodes if _is_known(episode)), default=None),
        "peak_jerk_fraction": max(
            (episode.peak_jerk_fraction for episode in episodes if _is_known(episode)), default=None
        ),
        "limit_violations": sum(episode.limit_violations for episode in episodes),
        "limit_hits": dict(sorted(hits.items())),
        "interventions": sum(episode.holds for episode in episodes),
        "chunks": {key: sum(getattr(episode.chunks, key) for episode in episodes) for key in _CHUNK_KEYS},
        "age_ms": _median(episode.age_ms for episode in episodes),
        "infer_ms": _median(episode.infer_ms for episode in episodes),
        "reasons": dict(
            Counter(_kind(episode.reason) for episode in episodes if not episode.is_success).most_common(8)
        ),
    }


def _is_known(episode: EpisodeFigures) -> bool:
    return math.isfinite(episode.jerk_max_rad_s3) and math.isfinite(episode.peak_jerk_fraction)


def _kind(reason: str) -> str:
    """A reason without what differs from one failure of the kind to the next."""
    return reason.split(";")[0].split(":")[0]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None
