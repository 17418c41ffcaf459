"""Whether base and tool frame point where they are said to: small moves, told in words, seen by a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vla_ros.calibration.verdict import Check
from vla_ros.geometry import rotations
from vla_ros.types import FloatArray

STEP_M = 0.02
_WAY_M, _TURN_DEG = 0.004, 2.0
_NAMED = 0.4
Frame = Literal["base", "tool"]


@dataclass(frozen=True)
class AxisMove:
    """A move along an axis.

    Attributes:
        frame: `base` or `tool`.
        axis: `x`, `y` or `z`.
        way_m: (3,) in base axes.
        words: where that is, for who looks at the arm.
    """

    frame: Frame
    axis: str
    way_m: FloatArray
    words: str


@dataclass(frozen=True)
class AxisResult:
    """A move, what was measured of it and what a person saw.

    Attributes:
        move: the move.
        measured_m: (3,) displacement of the tcp by the arm's own forward kinematics, base axes.
        turned_deg: by how much the tool turned meanwhile.
        is_seen: whether a person saw it go there; None if nobody answered.
    """

    move: AxisMove
    measured_m: FloatArray
    turned_deg: float
    is_seen: bool | None


def plan_moves(T_base_tcp: FloatArray, workspace_middle_m: FloatArray, step_m: float = STEP_M) -> list[AxisMove]:
    """Moves along x, y and z of the base, then of the tool.

    Args:
        T_base_tcp: (4, 4) where the tool is.
        workspace_middle_m: (3,) middle of the work space in base, which is where `out` is.
        step_m: how far.
    """
    moves = []
    frames: tuple[tuple[Frame, FloatArray], ...] = (("base", np.eye(3)), ("tool", T_base_tcp[:3, :3]))
    for frame, R in frames:
        for index, axis in enumerate("xyz"):
            way_m = step_m * R[:, index]
            words = describe(way_m, workspace_middle_m)
            if frame == "tool" and axis == "z":
                words += ", the way the fingers point"
            moves.append(AxisMove(frame, axis, np.asarray(way_m), words))
    return moves


def describe(way_m: FloatArray, workspace_middle_m: FloatArray) -> str:
    """A direction in base axes, for a person beside the arm.

    Out is from the base over the work space; left and right are those of who stands behind the base and looks out.
    """
    out = np.array([*workspace_middle_m[:2], 0.0])
    length = float(np.linalg.norm(out))
    # Of a work space around the base, REP-103's forward is out.
    out = out / length if length > 0.05 else np.array([1.0, 0.0, 0.0])
    # The work space's middle is seldom exactly on an axis; the axis is what is meant.
    axis = int(np.argmax(np.abs(out)))
    out = np.sign(out[axis]) * np.eye(3)[axis]
    left = np.cross([0.0, 0.0, 1.0], out)
    unit = way_m / np.linalg.norm(way_m)
    parts = []
    outwards = ("away from the base, out over the work space", "back towards the base")
    names = (outwards, ("left", "right"), ("up", "down"))
    for direction, (along, against) in zip((out, left, np.array([0.0, 0.0, 1.0])), names, strict=True):
        size = float(unit @ direction)
        if abs(size) > _NAMED:
            parts.append((abs(size), along if size > 0.0 else against))
    parts.sort(key=lambda part: -part[0])
    text = " and ".join(name for _, name in parts)
    is_side = any(name in ("left", "right") for _, name in parts)
    return f"{text}, seen by who stands behind the base and looks out over the work space" if is_side else text


def measure(T_base_before: FloatArray, T_base_after: FloatArray) -> tuple[FloatArray, float]:
    """(3,) displacement in base axes, m, and turn, degrees."""
    turn = float(rotations.angle_between(T_base_before[:3, :3], T_base_after[:3, :3]))
    return np.asarray(T_base_after[:3, 3] - T_base_before[:3, 3]), float(np.degrees(turn))


def judge_axes(results: Sequence[AxisResult]) -> tuple[Check, ...]:
    """The verdict: what was measured and what was seen of each move, and what a pattern of failures comes from."""
    checks = []
    for result in results:
        move = result.move
        off_m = float(np.linalg.norm(result.measured_m - move.way_m))
        name, where = f"{move.frame}_{move.axis}", f"+{move.axis} of the {move.frame} frame"
        x, y, z = (1e3 * result.measured_m).tolist()
        text = f"{where}: measured ({x:+.1f}, {y:+.1f}, {z:+.1f}) mm in base"
        is_there = off_m <= _WAY_M and result.turned_deg <= _TURN_DEG
        if not is_there:
            text += f", {1e3 * off_m:.1f} mm from where it should be (limit {1e3 * _WAY_M:g} mm); did a limit act?"
        checks.append(Check(f"{name}_measured", is_there, text))
        told = {True: "seen to go there", False: f"did NOT go {move.words}", None: "nobody looked"}[result.is_seen]
        checks.append(Check(f"{name}_seen", result.is_seen is True, f"{where}: {told}"))
    cause = likely_cause(results)
    if cause:
        checks.append(Check("likely_cause", False, cause))
    return tuple(checks)


def likely_cause(results: Sequence[AxisResult]) -> str:
    """What makes just these axes wrong, empty if none is."""
    wrong = {(result.move.frame, result.move.axis) for result in results if result.is_seen is False}
    base = {axis for frame, axis in wrong if frame == "base"}
    tool = {axis for frame, axis in wrong if frame == "tool"}
    if base == {"x", "y"}:
        return (
            "base x and y are wrong and z is right: the base frame is turned about z; on a UR `base` and `base_link` "
            "differ by half a turn (base_frame in the robot's YAML), or the arm stands turned on its table"
        )
    if "z" in base:
        return (
            "base z is wrong: the arm hangs or leans, and the description's base frame doesn't; or it is another arm's "
            "description, or joints in another order"
        )
    if base:
        return f"base {', '.join(sorted(base))} alone can't be wrong in a right-handed frame: look once more"
    if tool:
        return "the base is right and the tool isn't: tcp_frame in the robot's YAML, or how the gripper is mounted"
    return ""
