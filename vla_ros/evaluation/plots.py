"""The picture of an episode: what the joints were told, against their limits."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.evaluation.drawing import figure_file
from vla_ros.evaluation.episode_log import EpisodeLog
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

# Colours that people with any colour vision tell apart (P. Tol, 2021, "bright", and black).
JOINT_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#222222")
STATE_COLOURS = {
    "idle": "#E4E4E4",
    "running": "#FFFFFF",
    "holding": "#FCE8B2",
    "stopped": "#F7C6C5",
    "fault": "#E9A3A0",
}
UNKNOWN_STATE_COLOUR = "#F4F4F4"
_LIMIT_COLOUR = "#C00000"


def plot_joints(log: EpisodeLog, model: RobotModel, path: Path) -> None:
    """Draws positions, velocities and accelerations of the commands as parts of their limits, into a PNG.

    Of positions, 0 is the middle of the range and 100 % its ends. The background says what the safety filter's state
    was. A panel whose values stay below 36 % of their limits is drawn larger, and says so.

    Args:
        log: an episode with at least one command.
        model: gives the limits.
        path: of the picture.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    middle, half = 0.5 * (model.upper + model.lower), 0.5 * (model.upper - model.lower)
    panels = (
        ("position in its range", (log.command_positions.values - middle) / half),
        ("velocity", _fraction(log.command_velocities.values, model.velocity)),
        ("acceleration", _fraction(log.command_accelerations(), model.acceleration)),
    )
    with figure_file(path, 11.0, 8.6) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True)
        for axis, (name, fractions) in zip(axes, panels, strict=True):
            _draw_states(axis, log)
            _draw_panel(axis, name, log, 100.0 * fractions)
        axes[-1].set_xlabel("time since the task was given, s")
        axes[0].set_xlim(*_time_limits(log))
        figure.suptitle(
            f"“{log.task}”: {log.outcome} after {log.duration_s:.1f} s", x=0.075, y=0.985, ha="left", fontsize=14
        )
        figure.text(
            0.075,
            0.935,
            f"{model.config.name}, seed {log.seed}; joint commands as parts of their limits",
            fontsize=10,
            color="#555555",
        )
        _draw_legend(figure, axes[0], log)
        figure.subplots_adjust(left=0.075, right=0.83, top=0.89, bottom=0.065, hspace=0.2)


def _fraction(values: FloatArray, limit: FloatArray) -> FloatArray:
    """Values over limits; with a limit of 0, 0 is 0 and the rest is left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values == 0.0, 0.0, values / limit)


def _time_limits(log: EpisodeLog) -> tuple[float, float]:
    times_s = log.command_times_s
    return float(times_s.min()), max(float(times_s.max()), float(times_s.min()) + 1e-3)


def _draw_panel(axis: Any, name: str, log: EpisodeLog, percents: FloatArray) -> None:
    for i, joint in enumerate(log.joint_names):
        colour = JOINT_COLOURS[i % len(JOINT_COLOURS)]
        style = "-" if i < len(JOINT_COLOURS) else "--"
        axis.plot(log.command_times_s, percents[:, i], style, color=colour, linewidth=1.1, label=joint)
    axis.axhline(0.0, color="#999999", linewidth=0.6, zorder=1)
    for limit in (-100.0, 100.0):
        axis.axhline(limit, color=_LIMIT_COLOUR, linewidth=1.3, linestyle=(0, (6, 3)), zorder=1.5)
    size = np.where(np.isfinite(percents), np.abs(percents), 0.0)
    peak_row, peak_joint = np.unravel_index(int(np.argmax(size)), size.shape)
    peak = float(size[peak_row, peak_joint])
    reach = _reach(peak)
    axis.set_ylim(-reach, reach)
    if reach < 100.0:
        axis.set_title("limits, ±100 %, outside of the panel", loc="left", fontsize=9, color="#555555", pad=3)
    axis.set_ylabel(f"{name}, % of limit" if name != "position in its range" else f"{name}, %")
    axis.set_title(
        f"peak {peak:.0f} % ({log.joint_names[peak_joint]} at {log.command_times_s[peak_row]:.2f} s)",
        loc="right",
        fontsize=9,
        color=_LIMIT_COLOUR if peak > 100.0 else "#555555",
        pad=3,
    )
    axis.grid(color="#DDDDDD", linewidth=0.5)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _reach(peak_percent: float) -> float:
    """How far a panel goes: past the limits, but nearer where values are so small that they would be a flat line."""
    nearer = [reach for reach in (2.0, 5.0, 10.0, 20.0, 40.0) if peak_percent < 0.9 * reach]
    return nearer[0] if nearer else 1.12 * max(100.0, peak_percent)


def _draw_states(axis: Any, log: EpisodeLog) -> None:
    """Shades the stretches of one state; one reaches to the first tick of the next."""
    times_s = log.command_times_s
    begin = 0
    for state, run in groupby(log.verdict_states_at(log.command_stamps_ns)):
        end = begin + len(list(run))
        colour = STATE_COLOURS.get(state, UNKNOWN_STATE_COLOUR)
        axis.axvspan(times_s[begin], times_s[min(end, len(times_s) - 1)], color=colour, linewidth=0, zorder=0)
        begin = end


def _draw_legend(figure: Any, axis: Any, log: EpisodeLog) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles, labels = axis.get_legend_handles_labels()
    handles.append(Line2D([], [], color=_LIMIT_COLOUR, linewidth=1.3, linestyle=(0, (6, 3))))
    labels.append("limit")
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.84, 0.895), frameon=False, fontsize=9)
    present = set(log.verdict_states_at(log.command_stamps_ns))
    states = [state for state in STATE_COLOURS if state in present] + sorted(present - STATE_COLOURS.keys())
    patches = [Patch(facecolor=STATE_COLOURS.get(state, UNKNOWN_STATE_COLOUR), edgecolor="#AAAAAA") for state in states]
    figure.legend(
        patches,
        [state or "unknown" for state in states],
        title="safety filter",
        title_fontsize=9,
        fontsize=9,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(0.84, 0.605),
        frameon=False,
    )
