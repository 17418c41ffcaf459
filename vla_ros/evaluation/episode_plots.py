"""The picture of a recorded episode on one time axis: tool, joints, gripper, the verdicts, and who had the arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.evaluation.drawing import figure_file
from vla_ros.evaluation.plots import JOINT_COLOURS, STATE_COLOURS, UNKNOWN_STATE_COLOUR
from vla_ros.geometry import rotations
from vla_ros.recording.recorded import RecordedEpisode, Series
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

# Share of the picture's width between which its time axis runs: what a page needs to lay a cursor over it.
LEFT, RIGHT = 0.075, 0.86
_MOST_POINTS = 1500
_AXES = ("#4477AA", "#EE6677", "#228833")
_STYLES = {"target": (0, (4, 2)), "command": (0, (1, 1)), "measured": "-"}
_INTERVENTION_COLOUR, _EVENT_COLOUR = "#CC79A7", "#666666"


@dataclass(frozen=True)
class Span:
    """A stretch of time with a name, s from the start."""

    begin_s: float
    end_s: float
    name: str


def plot_episode(episode: RecordedEpisode, model: RobotModel, path: Path, start_ns: int, duration_s: float) -> None:
    """Draws it into an SVG whose time axis is between `LEFT` and `RIGHT` of its width.

    Args:
        episode: what is shown.
        model: of its arm, for the tool's pose.
        path: of the picture.
        start_ns: time 0.
        duration_s: of the axis.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    with figure_file(path, 12.0, 11.0) as figure:
        _draw_episode(figure, episode, model, start_ns, duration_s)


def _draw_episode(figure: Any, episode: RecordedEpisode, model: RobotModel, start_ns: int, duration_s: float) -> None:
    axes = figure.subplots(5, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 3, 1.2, 1.6]})
    kinds = _kinds(episode, model)
    _draw(axes[0], {kind: Series(s.stamps_ns, s.values[:, :3]) for kind, s in kinds.items()}, "xyz", _AXES, start_ns)
    axes[0].set_ylabel("tcp in base, m")
    _draw(axes[1], {kind: Series(s.stamps_ns, s.values[:, 3:]) for kind, s in kinds.items()}, "xyz", _AXES, start_ns)
    axes[1].set_ylabel("turned by, degrees")
    joints = {
        "command": episode.joint_commands,
        "measured": episode.joint_positions,
        "target": episode.joint_targets,
    }
    _draw(axes[2], {k: _thin(s) for k, s in joints.items()}, model.names, JOINT_COLOURS, start_ns)
    axes[2].set_ylabel("joints, rad")
    _draw_gripper(axes[3], episode, start_ns)
    _draw_verdicts(axes[4], episode, start_ns, duration_s)
    for axis in axes:
        for span in interventions(episode, start_ns, duration_s):
            axis.axvspan(span.begin_s, span.end_s, color=_INTERVENTION_COLOUR, alpha=0.15, linewidth=0)
        for event in episode.events:
            axis.axvline((event.stamp_ns - start_ns) * 1e-9, color=_EVENT_COLOUR, linewidth=0.6, linestyle=":")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.grid(color="#EEEEEE", linewidth=0.5)
        axis.set_axisbelow(True)
    axes[-1].set_xlim(0.0, max(duration_s, 1e-3))
    axes[-1].set_xlabel("time since the start of the episode, s")
    figure.subplots_adjust(left=LEFT, right=RIGHT, top=0.985, bottom=0.05, hspace=0.12)


def interventions(episode: RecordedEpisode, start_ns: int, duration_s: float) -> list[Span]:
    """When a person had the arm: from the events, else from who was selected."""
    spans: list[Span] = []
    begun: tuple[float, str] | None = None
    for event in episode.events:
        time_s = (event.stamp_ns - start_ns) * 1e-9
        if event.event == "intervention_start":
            begun = time_s, str(event.values.get("source", ""))
        elif event.event == "intervention_end" and begun is not None:
            spans.append(Span(begun[0], time_s, begun[1]))
            begun = None
    if begun is not None:
        spans.append(Span(begun[0], duration_s, begun[1]))
    return spans


def source_spans(episode: RecordedEpisode, start_ns: int, duration_s: float) -> list[Span]:
    """Who had the arm when; nobody's stretches left out."""
    changes = [(max(0.0, (stamp_ns - start_ns) * 1e-9), source) for stamp_ns, source in episode.sources]
    ends = [time_s for time_s, _ in changes[1:]] + [duration_s]
    return [Span(begin, end, who) for (begin, who), end in zip(changes, ends, strict=True) if who and end > begin]


def state_spans(episode: RecordedEpisode, start_ns: int, duration_s: float) -> list[Span]:
    """The filter's states."""
    spans: list[Span] = []
    for index, item in enumerate(episode.verdicts):
        is_last = index + 1 == len(episode.verdicts)
        end_s = duration_s if is_last else (episode.verdicts[index + 1].stamp_ns - start_ns) * 1e-9
        begin_s = (item.stamp_ns - start_ns) * 1e-9
        if spans and spans[-1].name == item.state.value:
            begin_s = spans.pop().begin_s
        spans.append(Span(begin_s, end_s, item.state.value))
    return spans


def limit_spans(episode: RecordedEpisode, start_ns: int, duration_s: float) -> dict[str, list[Span]]:
    """When each limit acted, by its name: from the verdict that names it to the next one."""
    found: dict[str, list[Span]] = {}
    ends = [item.stamp_ns for item in episode.verdicts[1:]] + [start_ns + round(duration_s * 1e9)]
    # Without verdicts there is an end too many.
    for item, end_ns in zip(episode.verdicts, ends, strict=False):
        for limit, reason in item.limits.items():
            if limit not in STATE_COLOURS:
                span = Span((item.stamp_ns - start_ns) * 1e-9, (end_ns - start_ns) * 1e-9, reason)
                found.setdefault(limit, []).append(span)
    return found


def _kinds(episode: RecordedEpisode, model: RobotModel) -> dict[str, Series]:
    """(n, 6) of the tool: position, m, and turns from its first pose, degrees."""
    poses: dict[str, Series] = {}
    for kind, joints in (("measured", episode.joint_positions), ("command", episode.joint_commands)):
        thin = _thin(joints)
        poses[kind] = Series(thin.stamps_ns, np.array([model.forward_kinematics(q) for q in thin.values]))
    if len(episode.tool_targets):
        poses["target"] = _thin(episode.tool_targets)
    elif len(episode.joint_targets):
        thin = _thin(episode.joint_targets)
        poses["target"] = Series(thin.stamps_ns, np.array([model.forward_kinematics(q) for q in thin.values]))
    poses = {kind: series for kind, series in poses.items() if len(series)}
    if not poses:
        return {}
    R_first = next(iter(poses.values())).values[0, :3, :3]
    return {kind: Series(series.stamps_ns, _vectors(series.values, R_first)) for kind, series in poses.items()}


def _vectors(T: FloatArray, R_first: FloatArray) -> FloatArray:
    turns = np.degrees(rotations.matrix_to_rotvec(T[:, :3, :3] @ R_first.T))
    return np.concatenate([T[:, :3, 3], turns], axis=1)


def _thin(series: Series) -> Series:
    """So many points that a line is the same to the eye."""
    every = max(1, -(-len(series) // _MOST_POINTS))
    return Series(series.stamps_ns[::every], series.values[::every])


def _draw(axis: Any, kinds: dict[str, Series], names: Sequence[str], colours: Sequence[str], start_ns: int) -> None:
    for kind in ("measured", "command", "target"):
        series = kinds.get(kind)
        if series is None or not len(series):
            continue
        times_s = (series.stamps_ns - start_ns) * 1e-9
        for column, name in enumerate(names):
            width = 1.8 if kind == "measured" else 1.0
            colour = colours[column % len(colours)]
            label = name if kind == "measured" else None
            axis.plot(times_s, series.values[:, column], linestyle=_STYLES[kind], color=colour, lw=width, label=label)
    handles, labels = axis.get_legend_handles_labels()
    present = [kind for kind, series in kinds.items() if len(series)]
    handles += [axis.plot([], [], linestyle=_STYLES[kind], color="#222222", lw=1.0)[0] for kind in present]
    labels += present
    axis.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=7)


def _draw_gripper(axis: Any, episode: RecordedEpisode, start_ns: int) -> None:
    openings = {"measured": episode.gripper_openings, "command": episode.gripper_commands}
    for kind, series in openings.items():
        if len(series):
            thin = _thin(series)
            times_s = (thin.stamps_ns - start_ns) * 1e-9
            axis.step(times_s, thin.values, where="post", linestyle=_STYLES[kind], color="#222222", lw=1.2, label=kind)
    targets = episode.tool_targets if len(episode.tool_targets) else episode.joint_targets
    said = np.isfinite(targets.openings)
    if said.any():
        thin = _thin(Series(targets.stamps_ns[said], targets.openings[said]))
        times_s = (thin.stamps_ns - start_ns) * 1e-9
        style = {"linestyle": _STYLES["target"], "color": "#AA3377", "lw": 1.0, "label": "target"}
        axis.step(times_s, thin.values, where="post", **style)
    axis.set_ylim(-0.1, 1.1)
    axis.set_ylabel("gripper")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.05), frameon=False, fontsize=7)


def _draw_verdicts(axis: Any, episode: RecordedEpisode, start_ns: int, duration_s: float) -> None:
    rows = ["filter", "source"]
    for span in state_spans(episode, start_ns, duration_s):
        colour = STATE_COLOURS.get(span.name, UNKNOWN_STATE_COLOUR)
        axis.broken_barh([(span.begin_s, span.end_s - span.begin_s)], (-0.4, 0.8), color=colour, ec="#AAAAAA", lw=0.4)
        if span.end_s - span.begin_s > 0.04 * duration_s:
            axis.text(0.5 * (span.begin_s + span.end_s), 0.0, span.name, ha="center", va="center", fontsize=7)
    sources = source_spans(episode, start_ns, duration_s)
    names = list(dict.fromkeys(span.name for span in sources))
    for span in sources:
        colour = JOINT_COLOURS[names.index(span.name) % len(JOINT_COLOURS)]
        axis.broken_barh([(span.begin_s, span.end_s - span.begin_s)], (0.6, 0.8), color=colour, alpha=0.5)
        axis.text(0.5 * (span.begin_s + span.end_s), 1.0, span.name, ha="center", va="center", fontsize=7)
    for limit, spans in limit_spans(episode, start_ns, duration_s).items():
        bars = [(span.begin_s, span.end_s - span.begin_s) for span in spans]
        axis.broken_barh(bars, (len(rows) - 0.4, 0.8), color="#C00000")
        rows.append(limit)
    axis.set_yticks(range(len(rows)), rows, fontsize=7)
    axis.set_ylim(len(rows) - 0.5, -0.5)
