"""The pictures of the benchmark, one a part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.benchmarks.motion.tracking import LENGTH_M, OURS
from vla_ros.benchmarks.options import Result
from vla_ros.evaluation.drawing import figure_file

# Colours that people with any colour vision tell apart (P. Tol, 2021, "bright").
_OURS_COLOUR = "#EE6677"
_COLOURS = ("#4477AA", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222222", "#BBBBBB")
_LIMIT_COLOUR = "#C00000"
_DT_S = 0.004


def draw(found: Mapping[str, Result], out: Path) -> list[Path]:
    """Draws what each part found into a PNG of its name; parts that found nothing are left out.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    drawers: dict[str, Callable[[Any, Result], None]] = {
        "tick": _draw_tick,
        "tick_p99": _draw_paced,
        "lost_direction": _draw_errors,
        "there_and_back": _draw_errors,
        "seams": _draw_seams,
        "adversarial": _draw_adversarial,
        "hops": _draw_hops,
    }
    paths = []
    for name, result in found.items():
        if not result.details or (name != "adversarial" and not result.series):
            continue
        path = out / f"{name}.png"
        with figure_file(path, 11.0, 7.0, layout="constrained") as figure:
            drawers[name](figure, result)
        paths.append(path)
    return paths


def _draw_tick(figure: Any, result: Result) -> None:
    axis = figure.subplots()
    times_us = {name: values for name, values in result.series["times_us"].items() if len(values)}
    for row, (name, values) in enumerate(times_us.items()):
        low, middle, high = np.percentile(values, [1.0, 50.0, 99.0])
        colour = _OURS_COLOUR if name == OURS else _COLOURS[0]
        axis.barh(row, middle, color=colour, height=0.6)
        axis.plot([low, high], [row, row], color="#222222", linewidth=1.2)
        axis.text(high * 1.05, row, f"{middle:.1f} µs", va="center", fontsize=10)
    axis.set_yticks(range(len(times_us)), list(times_us))
    axis.set_xscale("log")
    axis.set_xlabel("thread CPU time of a call, µs: median, 1st to 99th percentile")
    axis.set_title("A tick on the Panda; local, aligned and jacobian are pinocchio alone", loc="left")
    _tidy(axis)


def _draw_paced(figure: Any, result: Result) -> None:
    axes = figure.subplots(len(result.series), 1, squeeze=False)[:, 0]
    for axis, (name, wall_ms) in zip(axes, result.series.items(), strict=True):
        axis.plot(wall_ms, ".", markersize=2.0, color=_COLOURS[0])
        axis.axhline(result.details[name]["p99_ms"], color=_LIMIT_COLOUR, linewidth=1.0)
        axis.set_yscale("log")
        axis.set_ylabel("wall time, ms")
        axis.set_title(f"{name.replace('_', ' ').replace('hz', 'Hz')}: line is the 99th percentile", loc="left")
        _tidy(axis)
    axes[-1].set_xlabel("tick")


def _draw_errors(figure: Any, result: Result) -> None:
    """Pose errors over time by case and solver."""
    cases = dict(list(result.series.items())[:24])
    columns = min(4, len(cases))
    axes = figure.subplots(math.ceil(len(cases) / columns), columns, squeeze=False, sharex=True, sharey=True)
    names: list[str] = []
    for axis, (case, tracks) in zip(axes.flat, cases.items(), strict=False):
        names += [name for name in tracks if name not in names]
        for name, errors in tracks.items():
            ours = name == OURS
            colour = _OURS_COLOUR if ours else _COLOURS[(names.index(name) - 1) % len(_COLOURS)]
            error_mm = 1e3 * np.hypot(errors[:, 0], LENGTH_M * errors[:, 1])
            axis.plot(
                _DT_S * np.arange(len(errors)),
                np.maximum(error_mm, 1e-3),
                color=colour,
                linewidth=2.0 if ours else 0.9,
                zorder=3 if ours else 2,
                label=name,
            )
        axis.set_yscale("log")
        axis.set_title(case, loc="left", fontsize=8)
        _tidy(axis)
    for axis in axes.flat[len(cases) :]:
        axis.set_visible(False)
    figure.supxlabel("time, s")
    figure.supylabel("pose error, mm and mrad together")
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda item: len(item[1]))
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)


def _draw_seams(figure: Any, result: Result) -> None:
    above, below = figure.subplots(2, 1, sharex=True)
    for number, (name, series) in enumerate(result.series.items()):
        ours = name == "blend"
        colour = _OURS_COLOUR if ours else _COLOURS[number % len(_COLOURS)]
        times_s, p_tcp = np.asarray(series["times_s"]), np.asarray(series["p_tcp"])
        above.plot(times_s, 1e3 * p_tcp[:, 0], color=colour, linewidth=1.6 if ours else 0.9, label=name)
        if "positions" in series:
            jerk = np.abs(np.diff(np.asarray(series["positions"]), 3, axis=0)).max(axis=1) / _DT_S**3
            below.plot(times_s[3:], np.maximum(jerk, 1e-2), color=colour, linewidth=1.2 if ours else 0.6)
    below.set_yscale("log")
    above.set_ylabel("x of the tcp, mm")
    below.set_ylabel("largest jerk of a joint, rad/s³")
    below.set_xlabel("time, s")
    above.legend(frameon=False, fontsize=9, ncols=4)
    _tidy(above)
    _tidy(below)


def _draw_adversarial(figure: Any, result: Result) -> None:
    axis = figure.subplots()
    counts = {name: count for name, count in result.details["counts"].items() if count}
    for row, (name, count) in enumerate(counts.items()):
        is_bad = name in ("violations", "exceptions", "not_finite")
        axis.barh(row, count, color=_LIMIT_COLOUR if is_bad else _COLOURS[0], height=0.6)
        axis.text(count * 1.1, row, f"{count:,}", va="center", fontsize=10)
    axis.set_yticks(range(len(counts)), [name.replace("_", " ") for name in counts])
    axis.set_xscale("log")
    axis.set_title("What happened under adversity; violations, exceptions and not finite show only if any", loc="left")
    _tidy(axis)


def _draw_hops(figure: Any, result: Result) -> None:
    axis = figure.subplots()
    for name, colour, label in (
        ("relay_ms", _COLOURS[0], "bare relay, two hops"),
        ("chunks_ms", _OURS_COLOUR, "chunk to the first joint command that differs"),
    ):
        values = np.sort(result.series[name][~np.isnan(result.series[name])])
        axis.plot(values, 100.0 * np.arange(1, len(values) + 1) / max(1, len(values)), color=colour, label=label)
    axis.axhline(99.0, color="#999999", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xlabel("time, ms")
    axis.set_ylabel("answers until then, %")
    axis.legend(frameon=False)
    _tidy(axis)


def _tidy(axis: Any) -> None:
    axis.grid(color="#DDDDDD", linewidth=0.5)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
