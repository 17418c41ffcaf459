"""What `vla-ros replay` tells, for a machine and for a person."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_ros.evaluation.path_error import path_length_m
from vla_ros.evaluation.replay_log import ReplayRun, tool_path
from vla_ros.recording.recorded_actions import RecordedActions
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray


def summarise(
    actions: RecordedActions, model: RobotModel, moved: str, speed: float, result: ReplayRun, start: FloatArray
) -> dict[str, Any]:
    """The figures, with units in their names.

    Args:
        actions: that were repeated.
        model: of the arm that repeated them.
        moved: what was moved: `sim`, `arm`, or empty for nothing.
        speed: of the recorded pace.
        result: what came of it.
        start: (n,) rad, where the arm was.
    """
    path = tool_path(actions, model)
    distance_m = float(np.linalg.norm(path[0] - model.forward_kinematics(start)[:3, 3]))
    posture = actions.positions[0] if actions.positions is not None else actions.start_positions
    return {
        "episode": actions.name,
        "robot": model.config.name,
        "space": "joint" if actions.poses is None else "tool",
        "moved": moved or "nothing",
        "speed": speed,
        "targets": len(actions.times_s),
        "recorded_s": actions.duration_s,
        "duration_s": result.duration_s,
        "path_length_m": path_length_m(path),
        "start_distance_m": distance_m,
        "start_distance_rad": None if posture is None else float(np.abs(posture - start).max()),
        "completed": not result.problem,
        "problem": result.problem,
        "limits": {
            name: {"count": use.count, "first_s": use.first_s, "reason": use.reason}
            for name, use in result.limits.items()
        },
        **(result.error.values_mm() if result.error else {}),
    }


def describe(values: dict[str, Any]) -> str:
    """The figures for a person."""
    is_dry = values["moved"] == "nothing"
    what = f"{values['targets']} {values['space']} targets in {values['recorded_s']:.1f} s"
    took = f"{'would take' if is_dry else 'took'} {values['duration_s']:.1f} s at speed {values['speed']:g}"
    away = f"{1e3 * values['start_distance_m']:.0f} mm"
    lines = [
        f"{values['episode']}: {what}, {values['path_length_m']:.2f} m of way",
        f"{values['robot']} {'is' if is_dry else 'was'} {away} from where it begins; all of it {took}",
    ]
    for name, use in values["limits"].items():
        acts = "would act" if is_dry else "acted"
        lines.append(f"limit {name} {acts} {use['count']} times, first at {use['first_s']:.1f} s: {use['reason']}")
    if not values["limits"]:
        lines.append("no limit would act" if is_dry else "no limit acted")
    if "path_error_mm" in values:
        lines.append(
            f"tool at most {values['path_error_mm']:.1f} mm from the recorded path, "
            f"{values['tracking_error_max_mm']:.1f} mm from where it is wanted at the time"
        )
    if values["problem"]:
        lines.append(f"ended early: {values['problem']}")
    elif is_dry:
        lines.append("nothing was moved; --in sim or --in arm --arm true does it")
    return "\n".join(lines)
