"""A policy's answer on its way to the arm: decoded, placed in time, and what of it the policy is told next time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vla_ros.actions.decode import anchored_poses, decode_joint_chunk, decode_tool_chunk, place_in_time
from vla_ros.contract import ActionSpec
from vla_ros.types import ActionChunk, FloatArray, JointChunk, Observation, ToolChunk


def to_wire(
    chunk: ActionChunk,
    spec: ActionSpec,
    observation: Observation,
    positions_at: Callable[[int], FloatArray],
    now_ns: int,
    source: str,
) -> tuple[ToolChunk | JointChunk, ToolChunk | JointChunk]:
    """An answer in wire form.

    Args:
        chunk: the answer.
        spec: what it means.
        observation: that it answers.
        positions_at: (n,) joint positions measured at a stamp, rad; asked for in joint space only.
        now_ns: when the answer came.
        source: name of the policy.

    Returns:
        The chunk to send, and the same in absolute terms, as the policy is told what it has committed itself to.

    Raises:
        VlaRosError: if it can't be decoded, or is too old.
    """
    stamp_ns = observation.stamp_ns
    if spec.space == "tool":
        tool = decode_tool_chunk(chunk, spec, stamp_ns, observation.T_base_tcp, source)
        tool = place_in_time(tool, spec, now_ns)
        poses = anchored_poses(tool, observation.T_base_tcp)
        return tool, replace(tool, frame="absolute", transforms=poses, T_base_anchor=None)
    joint = decode_joint_chunk(chunk, spec, stamp_ns, positions_at(stamp_ns), source)
    joint = place_in_time(joint, spec, now_ns)
    return joint, joint
