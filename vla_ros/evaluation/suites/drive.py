"""A policy in an external suite: the environment's own time, no filter and no controller of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_ros.actions.decode import anchored_poses, decode_tool_chunk
from vla_ros.actions.encode import encode_tool_poses
from vla_ros.contract import ActionSpec, ObservationSpec
from vla_ros.errors import ContractError
from vla_ros.evaluation.suites.protocol import ExternalSuite, Moment
from vla_ros.observation.assembly import Ingredients, assemble
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.types import ActionChunk, CameraFrame, FloatArray, Observation, RobotState

_START_NS = 1_000_000_000


@dataclass(frozen=True)
class ExternalOutcome:
    """What came of one attempt.

    Attributes:
        task: number of the task.
        seed: of its beginning.
        instruction: what was asked.
        is_success: whether the environment says that it is done.
        steps: that were taken.
    """

    task: int
    seed: int
    instruction: str
    is_success: bool
    steps: int


def drive(
    suite: ExternalSuite,
    policy: Policy,
    task: int,
    seed: int,
    most_steps: int,
    executed_steps: int = 8,
    watch: Callable[[Moment], None] = lambda _moment: None,
) -> ExternalOutcome:
    """One attempt at a task.

    Args:
        suite: holds it.
        policy: acts in tool space with the suite's period.
        task: its number.
        seed: of its beginning, and the policy's.
        most_steps: after which it has failed.
        executed_steps: of each answer, before the next is asked for.
        watch: called with every moment.

    Raises:
        ContractError: if the policy's contract doesn't fit the suite's.
        VlaRosError: what suite and policy refuse.
    """
    _check(policy, suite)
    instruction = suite.instructions[task]
    policy.reset(instruction, seed)
    moment = suite.reset(task, seed)
    watch(moment)
    steps, told = 0, 1.0
    period_ns = round(suite.contract.action.period_s * 1e9)
    while steps < most_steps and not moment.is_over:
        stamp_ns = _START_NS + steps * period_ns
        observation = observe(policy.contract.observation, moment, stamp_ns, told, instruction)
        chunk = policy.infer(observation, InferenceContext(0.0, executed_steps))
        rows = native_actions(chunk, policy.contract.action, suite.contract.action, observation, told)
        for row in rows[:executed_steps]:
            moment = suite.step(row)
            watch(moment)
            steps += 1
            if moment.is_over or steps == most_steps:
                break
        told = _opening(rows[min(len(rows), executed_steps) - 1], suite.contract.action)
    return ExternalOutcome(task, seed, instruction, moment.is_success, steps)


def observe(
    spec: ObservationSpec, moment: Moment, stamp_ns: int, commanded_opening: float | None, instruction: str
) -> Observation:
    """A moment under a contract: its images flipped and sized, its pose written as the contract says.

    Raises:
        SensorError: if the contract asks for what the environment doesn't give.
    """
    frames = {
        name: CameraFrame(stamp_ns, moment.images[image.camera]) if image.camera in moment.images else None
        for name, image in spec.images.items()
    }
    height, width = next(iter(moment.images.values())).shape[:2]
    state = RobotState(stamp_ns, np.zeros(0), np.zeros(0), moment.gripper_opening)
    sizes = dict.fromkeys(spec.images, (height, width))
    parts = Ingredients(stamp_ns, frames, sizes, (state,), commanded_opening)
    return assemble(spec, parts, lambda _positions: moment.T_base_tcp, instruction)


def native_actions(
    chunk: ActionChunk, spec: ActionSpec, native: ActionSpec, observation: Observation, told: float
) -> FloatArray:
    """An answer as rows that the environment takes.

    What is already in the environment's form comes back as it was, but for what its bounds cut off.

    Args:
        chunk: the answer; an idle one is a step at rest.
        spec: what it means.
        native: what the environment takes.
        observation: that it answers.
        told: what the gripper was told last, for who leaves it alone.

    Raises:
        VlaRosError: if it can't be decoded.
    """
    if chunk.is_idle:
        rest = observation.T_base_tcp[None]
        return encode_tool_poses(rest, np.array([told]), native, observation.T_base_tcp)
    tool = decode_tool_chunk(chunk, spec, observation.stamp_ns, observation.T_base_tcp, "policy")
    poses = anchored_poses(tool, observation.T_base_tcp)
    openings = np.full(len(poses), told) if tool.openings is None else tool.openings
    return np.clip(encode_tool_poses(poses, openings, native, observation.T_base_tcp), -1.0, 1.0)


def _opening(row: FloatArray, native: ActionSpec) -> float:
    closed, opened = native.gripper_ends
    return float(np.clip((row[-1] - closed) / (opened - closed), 0.0, 1.0))


def _check(policy: Policy, suite: ExternalSuite) -> None:
    action, native = policy.contract.action, suite.contract.action
    wrong = []
    if action.space != "tool":
        wrong.append(f"it acts in {action.space} space")
    if action.period_s != native.period_s:
        wrong.append(f"its steps take {action.period_s} s, the suite's {native.period_s} s")
    if any(item.kind in ("joint_positions", "joint_velocities") for item in policy.contract.observation.state):
        wrong.append("it asks for the joints, which suites don't give")
    if policy.contract.observation.history_steps > 1:
        wrong.append("it asks for a history")
    if wrong:
        raise ContractError(f"contract {policy.contract.name} doesn't fit the suite: {'; '.join(wrong)}")
