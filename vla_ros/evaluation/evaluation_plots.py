"""Pictures of an evaluation: success by suite with intervals, how long it took, who did what the other didn't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_ros.evaluation.drawing import figure_file
from vla_ros.evaluation.evaluation_summary import by_suite, compare
from vla_ros.evaluation.figures import EpisodeFigures
from vla_ros.evaluation.metrics import wilson_interval
from vla_ros.evaluation.plots import JOINT_COLOURS

_PAIRED_COLOURS = ("#228833", "#4477AA", "#EE6677", "#BBBBBB")


def plot_evaluation(results: Mapping[str, Sequence[EpisodeFigures]], path: Path) -> None:
    """Draws success and times of policies, and the paired outcomes of the first two, into an SVG.

    Args:
        results: episodes by the policy's name.
        path: of the picture.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    with figure_file(path, 11.0, 3.6 if len(results) < 2 else 6.8) as figure:
        rows = 1 if len(results) < 2 else 2
        grid = figure.add_gridspec(rows, 2, left=0.075, right=0.98, top=0.93, bottom=0.09, wspace=0.18, hspace=0.4)
        _draw_success(figure.add_subplot(grid[0, 0]), results)
        _draw_times(figure.add_subplot(grid[0, 1]), results)
        if rows == 2:
            _draw_pairs(figure.add_subplot(grid[1, :]), *list(results.items())[:2])


def _draw_success(axis: Any, results: Mapping[str, Sequence[EpisodeFigures]]) -> None:
    width = 0.8 / len(results)
    names: list[str] = []
    for index, (policy, episodes) in enumerate(results.items()):
        suites = by_suite(episode for episode in episodes if not episode.variant)
        names = list(suites)
        for place, suite in enumerate(suites.values()):
            done, trials = sum(episode.is_success for episode in suite), len(suite)
            lower, upper = wilson_interval(done, trials)
            share = done / trials
            x = place + (index - 0.5 * (len(results) - 1)) * width
            label = policy if place == 0 else None
            axis.bar(x, 100 * share, 0.9 * width, color=_colour(index), label=label)
            bars = [[100 * max(0.0, share - lower)], [100 * max(0.0, upper - share)]]
            axis.errorbar(x, 100 * share, bars, color="#222222", capsize=3, linewidth=1)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylim(0, 105)
    axis.set_title("success, % (95 % interval)", fontsize=11, loc="left")
    axis.legend(fontsize=8, loc="lower right")


def _draw_times(axis: Any, results: Mapping[str, Sequence[EpisodeFigures]]) -> None:
    done = [[episode.time_s for episode in episodes if episode.is_success] for episodes in results.values()]
    longest = max((max(times) for times in done if times), default=1.0)
    bins = [longest * edge / 30 for edge in range(31)]
    for index, (policy, times) in enumerate(zip(results, done, strict=True)):
        axis.hist(times, bins=bins, histtype="step", linewidth=1.6, color=_colour(index), label=policy)
    axis.set_title("time to success, s", fontsize=11, loc="left")
    axis.legend(fontsize=8)


def _draw_pairs(axis: Any, a: tuple[str, Sequence[EpisodeFigures]], b: tuple[str, Sequence[EpisodeFigures]]) -> None:
    suites = {suite: compare(episodes, b[1]) for suite, episodes in by_suite(a[1]).items()}
    labels = ("both", f"only {a[0]}", f"only {b[0]}", "neither")
    for place, paired in enumerate(suites.values()):
        left = 0
        counts = (paired.both, paired.only_a, paired.only_b, paired.neither)
        for label, count, colour in zip(labels, counts, _PAIRED_COLOURS, strict=True):
            axis.barh(place, count, left=left, color=colour, label=label if place == 0 else None)
            if count:
                axis.text(left + count / 2, place, str(count), ha="center", va="center", fontsize=9)
            left += count
    axis.set_yticks(range(len(suites)), list(suites))
    axis.set_title("the same attempts: who succeeded", fontsize=11, loc="left")
    axis.legend(fontsize=8, ncols=4, loc="upper right", bbox_to_anchor=(1.0, 1.16))


def _colour(index: int) -> str:
    return JOINT_COLOURS[index % len(JOINT_COLOURS)]
