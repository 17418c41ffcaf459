"""Shows a policy what an episode saw, and puts its answers beside what was done; nothing moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_ros.actions.decode import anchored_poses, decode_joint_chunk, decode_tool_chunk
from vla_ros.contract import Contract
from vla_ros.errors import InstructionError, RecordingError, SensorError
from vla_ros.evaluation.drawing import figure_file
from vla_ros.evaluation.plots import JOINT_COLOURS
from vla_ros.geometry.rotations import matrix_to_rotvec
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.registry import PolicyConfig
from vla_ros.recording.observations import RecordedObservations
from vla_ros.recording.open_loop import Answer, Comparison, Executed, compare, executed
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray, Observation

_GROUPS = (("position, mm", "_m", 1e3), ("turn, degrees", "_rad", 180.0 / np.pi), ("gripper", "gripper", 1.0))


@dataclass(frozen=True, eq=False)
class OpenLoop:
    """A comparison with what it was made of.

    Attributes:
        comparison: the errors.
        done: what was done.
        unseen: stamps of which no observation could be made, and why the first.
        idle: answers that said to stay.
    """

    comparison: Comparison
    done: Executed
    unseen: tuple[int, str]
    idle: int


def run_open_loop(
    episode: RecordedEpisode,
    policy: Policy,
    config: PolicyConfig,
    contract: Contract,
    model: RobotModel,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> OpenLoop:
    """Asks a policy, as often as its own rate says, all along an episode.

    Args:
        episode: the recording.
        policy: is asked.
        config: of it.
        contract: of it.
        model: of the arm.
        progress: called with the share that is done.

    Raises:
        ContractError: if the episode's rig doesn't give what the policy observes.
        InstructionError: if it can't read the episode's task.
        RecordingError: if nothing can be compared.
    """
    done = executed(episode, contract.action, model.forward_kinematics)
    observations = RecordedObservations(episode, contract)
    stamps, unseen = _observable(episode, contract, observations, 1.0 / config.rate_hz, done)
    answers, idle, task = [], 0, ""
    for index, observation in enumerate(observations.at(stamps)):
        progress(index / len(stamps))
        instruction = observation.instruction.strip() or episode.info.task.strip()
        if not instruction:
            raise InstructionError("", f"{episode.info.name} has no task", "a policy needs one to answer")
        if instruction != task:
            policy.reset(instruction, config.seed)
            task = instruction
        answer = _ask(policy, config, contract, observation, episode)
        if answer is None:
            idle += 1
        else:
            answers.append(answer)
    return OpenLoop(compare(answers, done, model.names), done, unseen, idle)


def _observable(
    episode: RecordedEpisode, contract: Contract, observations: RecordedObservations, period_s: float, done: Executed
) -> tuple[list[int], tuple[int, str]]:
    """Stamps of the reference camera, a period apart, of which an observation can be made."""
    name = contract.observation.images[contract.observation.reference].camera
    camera = episode.cameras.get(name)
    if camera is None or not len(camera):
        raise RecordingError(f"{episode.info.name} has no image of camera {name!r}, the policy's reference")
    stamps: list[int] = []
    refused, reason = 0, ""
    for stamp_ns in camera.stamps_ns.tolist():
        is_due = not stamps or stamp_ns - stamps[-1] >= period_s * 1e9 - 1e6
        if not is_due or not done.stamps_ns[0] <= stamp_ns <= done.stamps_ns[-1]:
            continue
        try:
            observations.at([stamp_ns])
        except SensorError as error:
            refused, reason = refused + 1, reason or str(error)
            continue
        stamps.append(stamp_ns)
    if not stamps:
        raise RecordingError(f"{episode.info.name}: nothing can be observed: {reason or 'no image in its time'}")
    return stamps, (refused, reason)


def _ask(
    policy: Policy, config: PolicyConfig, contract: Contract, observation: Observation, episode: RecordedEpisode
) -> Answer | None:
    """Its answer, None for one that says to stay."""
    spec = contract.action
    steps = spec.steps_within(1.0 / config.rate_hz)
    chunk = policy.infer(observation, InferenceContext(0.0, steps, None))
    if chunk.is_idle:
        return None
    stamp_ns = observation.stamp_ns
    if spec.space == "tool":
        T = observation.T_base_tcp
        tool = decode_tool_chunk(chunk, spec, stamp_ns, T, config.name)
        return Answer(stamp_ns, tool.time_from_start_s, anchored_poses(tool, T), tool.openings, T)
    positions = _joints_at(episode, stamp_ns)
    joint = decode_joint_chunk(chunk, spec, stamp_ns, positions, config.name)
    return Answer(stamp_ns, joint.time_from_start_s, joint.positions, joint.openings, positions)


def _joints_at(episode: RecordedEpisode, stamp_ns: int) -> FloatArray:
    measured = episode.joint_positions
    times_s = (measured.stamps_ns - stamp_ns) * 1e-9
    return np.array([np.interp(0.0, times_s, column) for column in measured.values.T])


def plot_open_loop(result: OpenLoop, title: str, path: Path) -> None:
    """Draws errors over the horizon, and answers beside what was done, into a PNG.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    comparison = result.comparison
    groups = [(label, ending, scale) for label, ending, scale in _GROUPS if _columns(comparison.names, ending)]
    with figure_file(path, 13.0, 3.2 * len(groups)) as figure:
        axes = figure.subplots(len(groups), 2, squeeze=False, width_ratios=[1, 2])
        for (left, right), (label, ending, scale) in zip(axes, groups, strict=True):
            for number, column in enumerate(_columns(comparison.names, ending)):
                colour, name = JOINT_COLOURS[number % len(JOINT_COLOURS)], comparison.names[column]
                errors = np.ma.masked_invalid(np.abs(comparison.errors[:, :, column]))
                stay = np.ma.masked_invalid(np.abs(comparison.stay_errors[:, :, column]))
                left.plot(comparison.due_s, scale * errors.mean(axis=0), color=colour, marker=".", label=name)
                left.plot(comparison.due_s, scale * stay.mean(axis=0), color=colour, linestyle=":", linewidth=1.0)
                for times_s, values, kind in _tracks(result, column):
                    style = {"lw": 1.8, "alpha": 0.35} if kind == "done" else {"lw": 0.8, "alpha": 0.9}
                    right.plot(times_s, scale * values, color=colour, **style)
            left.set_ylabel(f"mean error, {label}")
            left.set_ylim(bottom=0.0)
            left.legend(fontsize=7, frameon=False)
            right.set_ylabel(label)
            for axis in (left, right):
                axis.grid(color="#DDDDDD", linewidth=0.5)
                for side in ("top", "right"):
                    axis.spines[side].set_visible(False)
        axes[-1][0].set_xlabel("due after the observation, s (dotted: who stays where it is)")
        axes[-1][1].set_xlabel("time, s (broad: done; thin: each answer)")
        figure.suptitle(title, x=0.05, ha="left", fontsize=12)
        figure.tight_layout()


def _columns(names: Sequence[str], ending: str) -> list[int]:
    return [column for column, name in enumerate(names) if name.endswith(ending)]


def _tracks(result: OpenLoop, column: int) -> Iterator[tuple[FloatArray, FloatArray, str]]:
    """(times, s; values; `done` or `answer`) of one dimension."""
    done, comparison = result.done, result.comparison
    start_ns = int(done.stamps_ns[0])
    is_tool = done.values.ndim == 3
    R_first = done.values[0, :3, :3] if is_tool else None
    done_s = np.asarray((done.stamps_ns - start_ns) * 1e-9, dtype=np.float64)
    yield done_s, _dimension(done.values, done.openings, column, R_first), "done"
    for answer in comparison.answers:
        times_s = np.asarray((answer.stamp_ns - start_ns) * 1e-9 + answer.due_s, dtype=np.float64)
        openings = np.full(len(times_s), np.nan) if answer.openings is None else answer.openings
        yield times_s, _dimension(answer.values, openings, column, R_first), "answer"


def _dimension(values: FloatArray, openings: FloatArray, column: int, R_first: FloatArray | None) -> FloatArray:
    if R_first is None:
        return values[:, column] if column < values.shape[1] else openings
    if column == 6:
        return openings
    if column < 3:
        return values[:, column, 3]
    return np.asarray(matrix_to_rotvec(values[:, :3, :3] @ R_first.T)[:, column - 3])
