"""How far a network's answers are from what was done, in millimetres and degrees, on examples it wasn't trained on.

Answers and recording are read by the same code that reads them at work; nothing moves. "Staying" is the error of who
does nothing, which an answer has to be better than.
"""

from __future__ import annotations

import numpy as np

from vla_ros.actions.decode import decode_joint_chunk, decode_tool_chunk
from vla_ros.contract import ActionSpec
from vla_ros.errors import ChunkError
from vla_ros.geometry.rotations import matrix_to_rotvec
from vla_ros.training.outcome import Examination
from vla_ros.training.selection import BoolArray
from vla_ros.types import ActionChunk, FloatArray

_STEPS = (1, 4)


def compare_chunks(answers: FloatArray, done: FloatArray, is_valid: BoolArray, spec: ActionSpec) -> Examination:
    """Holds answers against what was done.

    A chunk that can't be read (`ChunkError`) counts in `unreadable` and nowhere else.

    Args:
        answers: (n, H, d) in the contract's form, not normalised.
        done: (n, H, d) likewise.
        is_valid: (n, H) bool; the steps that count, the first ones of each chunk.
        spec: what the numbers mean. Poses relative to an observation are compared as seen from it.

    Returns:
        The mean position error in mm (in joint space, the mean error of a joint in degrees) as score, and as figures,
        too, at step 1, 4 and the last, that of the turn, the share of steps with the gripper on the right side of half
        open, and what staying has of each. What the contract doesn't have is missing.
    """
    count, horizon = is_valid.shape
    rows: dict[str, FloatArray] = {}
    unreadable = 0
    for index in range(count):
        steps = int(is_valid[index].sum())
        if not steps:
            continue
        try:
            errors = _errors(answers[index, :steps], done[index, :steps], spec)
        except ChunkError:
            unreadable += 1
            continue
        for name, values in errors.items():
            rows.setdefault(name, np.full((count, horizon), np.nan))[index, :steps] = values
    figures: dict[str, float] = {}
    for name, values in rows.items():
        figures[name] = _mean(values)
        if name in ("position_mm", "joint_deg"):
            for step in sorted({*(step for step in _STEPS if step <= horizon), horizon}):
                figures[f"{name}_at_{step}"] = _mean(values[:, step - 1])
    figures = {name: value for name, value in figures.items() if np.isfinite(value)}
    if unreadable:
        figures["unreadable"] = unreadable / count
    score = figures.get("position_mm", figures.get("joint_deg", float("inf")))
    # Who is read rarely isn't good for that.
    return Examination(float("inf") if unreadable > count // 2 else score, figures)


def describe_open_loop(figures: dict[str, float]) -> str:
    """The figures for a person, in a line."""
    parts = []
    for name, unit in (("position_mm", "mm"), ("joint_deg", "degrees a joint"), ("turn_deg", "degrees")):
        if name in figures:
            stay = figures.get(f"stay_{name}")
            beside = "" if stay is None else f" (staying: {stay:.3g})"
            parts.append(f"{figures[name]:.3g} {unit}{beside}")
    if "gripper_accuracy" in figures:
        parts.append(f"gripper right in {100.0 * figures['gripper_accuracy']:.1f} %")
    return ", ".join(parts)


def _errors(answer: FloatArray, done: FloatArray, spec: ActionSpec) -> dict[str, FloatArray]:
    """Each (steps,)."""
    chunks = (ActionChunk(answer), ActionChunk(done))
    found: dict[str, FloatArray] = {}
    if spec.space == "joint":
        joints = answer.shape[1] - spec.has_gripper
        here, there = (decode_joint_chunk(chunk, spec, 0, np.zeros(joints), "training") for chunk in chunks)
        found["joint_deg"] = np.degrees(np.abs(here.positions - there.positions).mean(axis=1))
        if spec.relative_to != "nothing":
            found["stay_joint_deg"] = np.degrees(np.abs(there.positions).mean(axis=1))
        openings = here.openings, there.openings
    else:
        tool, wanted = (decode_tool_chunk(chunk, spec, 0, np.eye(4), "training") for chunk in chunks)
        a, b = tool.transforms, wanted.transforms
        found["position_mm"] = 1e3 * np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1)
        found["turn_deg"] = _angles_deg(a[:, :3, :3].swapaxes(1, 2) @ b[:, :3, :3])
        if spec.relative_to != "nothing":
            found["stay_position_mm"] = 1e3 * np.linalg.norm(b[:, :3, 3], axis=1)
            found["stay_turn_deg"] = _angles_deg(b[:, :3, :3])
        openings = tool.openings, wanted.openings
    if openings[0] is not None and openings[1] is not None:
        found["gripper_accuracy"] = ((openings[0] > 0.5) == (openings[1] > 0.5)).astype(np.float64)
    return found


def _angles_deg(R: FloatArray) -> FloatArray:
    return np.asarray(np.degrees(np.linalg.norm(matrix_to_rotvec(R), axis=-1)))


def _mean(values: FloatArray) -> float:
    """Over what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
