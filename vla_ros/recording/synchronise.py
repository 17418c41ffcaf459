"""An episode on its contract's grid: what was seen, what was measured, where the arm was sent, who sent it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vla_ros.contract import Contract, find_differences, find_mismatches, state_layout
from vla_ros.errors import ContractError, DatasetError, SensorError
from vla_ros.observation.state_vector import write_state
from vla_ros.recording import dataset as d
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.executed import ExecutedTargets, pose_vector
from vla_ros.recording.frame_images import FrameImages
from vla_ros.recording.grid import Step, plan_grid
from vla_ros.recording.recorded import Finding, RecordedEpisode
from vla_ros.recording.spans import Spans
from vla_ros.recording.truth import Truth, truth_columns
from vla_ros.recording.wanted import WantedActions
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

Gaps = Literal["split", "drop", "refuse"]


@dataclass(frozen=True)
class FrameOptions:
    """How frames are made.

    Attributes:
        gaps: what to do where images or states are missing: `split` the episode there, `drop` the episode, or `refuse`.
        tolerance_s: how far a reference image may lie from its time on the grid; None for the contract's max_skew_s or
            half a period, whichever is more.
        least_frames: pieces shorter than this are left out, and told.
    """

    gaps: Gaps = "split"
    tolerance_s: float | None = None
    least_frames: int = 2

    def tolerance_ns(self, contract: Contract) -> int:
        """In ns, for a contract."""
        usual_s = max(contract.observation.max_skew_s, 0.5 * contract.action.period_s)
        return round((usual_s if self.tolerance_s is None else self.tolerance_s) * 1e9)


def make_frames(
    episode: RecordedEpisode,
    contract: Contract,
    options: FrameOptions | None = None,
    model: RobotModel | None = None,
) -> tuple[d.Schema, d.EpisodeFrames]:
    """The frames of an episode without gaps; `make_episodes` for any.

    Args:
        episode: what was recorded.
        contract: the grid, and what of the episode is wanted.
        options: how.
        model: of its robot, where the caller has one.

    Raises:
        DatasetError: besides what `make_episodes` raises, if gaps leave another number of pieces than one.
        ContractError: as `make_episodes`.
    """
    schema, pieces = make_episodes(episode, contract, options, model)
    if len(pieces) != 1:
        raise DatasetError(
            f"{episode.info.name}: gaps leave {len(pieces)} pieces of it; take them one by one, or leave it out"
        )
    return schema, pieces[0]


def make_episodes(
    episode: RecordedEpisode,
    contract: Contract,
    options: FrameOptions | None = None,
    model: RobotModel | None = None,
) -> tuple[d.Schema, tuple[d.EpisodeFrames, ...]]:
    """The frames of an episode, a piece for each stretch without a gap: `attributes["findings"]` tells of gaps.

    Arguments as of `make_frames`. With `drop`, an episode with gaps gives no piece.

    Raises:
        ContractError: if the rig that it was recorded in doesn't give what the contract asks for.
        DatasetError: if not one frame is complete, there are gaps under `refuse`, or an action can't be told.
    """
    options = options or FrameOptions()
    mismatches = find_mismatches(episode.info.rig, contract)
    if mismatches:
        raise ContractError(f"{episode.info.name}: {'; '.join(mismatches)}")
    arm = RecordedArm(episode, model)
    plan = plan_grid(episode, contract, arm, options.tolerance_ns(contract))
    if plan.gaps and options.gaps == "refuse":
        gap = next(finding for finding in plan.findings if finding.kind == "gap")
        raise DatasetError(f"{episode.info.name}: has {plan.gaps} gaps, the first: {gap.text}")
    schema = make_schema(episode, contract, arm)
    if plan.gaps and options.gaps == "drop":
        return schema, ()
    maker = _FrameMaker(episode, contract, arm, schema)
    kept = [piece for piece in plan.pieces if len(piece) >= options.least_frames]
    short = sum(len(piece) for piece in plan.pieces) - sum(len(piece) for piece in kept)
    findings = list(plan.findings)
    if short:
        findings.append(Finding("short", "", f"{short} frames between gaps are too few for an episode", count=short))
    findings += contract_findings(episode, contract)
    return schema, tuple(
        maker.make(piece, _piece_name(episode, number, len(kept)), findings) for number, piece in enumerate(kept)
    )


def make_schema(episode: RecordedEpisode, contract: Contract, arm: RecordedArm) -> d.Schema:
    """Columns and images of the episode's frames under a contract."""
    joints = episode.robot.joint_names
    action = (*joints,) if contract.action.space == "joint" else _POSE_NAMES
    action = (*action, "gripper") if contract.action.has_gripper else action
    state = _state_names(contract, joints)
    columns = [
        *([d.Column(d.STATE, "float32", (len(state),), state)] if state else []),
        d.Column(d.ACTION, "float32", (len(action),), action),
        d.Column(d.POLICY_ACTION, "float32", (len(action),), action),
        d.Column(d.HAS_POLICY_ACTION, "bool"),
        d.Column(d.STAMP, "int64"),
        d.Column(d.TCP_POSE, "float64", (7,), _POSE_NAMES),
        d.Column(d.JOINT_POSITIONS, "float64", (len(joints),), joints),
        d.Column(d.SOURCE, "string"),
        *(d.Column(name, "bool") for name in (d.IS_INTERVENTION, d.IS_FILTERED, d.IS_HELD, d.IS_PADDING)),
        *truth_columns(episode, contract),
    ]
    images = []
    for name, image in contract.observation.images.items():
        recorded, camera = episode.cameras.get(image.camera), episode.info.rig.cameras.get(image.camera)
        if recorded is not None:
            images.append(d.ImageColumn(f"{d.IMAGES}{name}", recorded.height, recorded.width, image.camera))
        elif camera is not None:
            images.append(d.ImageColumn(f"{d.IMAGES}{name}", camera.height, camera.width, image.camera))
    fps = 1.0 / contract.action.period_s
    return d.Schema(fps, episode.robot.name, tuple(columns), tuple(images), contract)


def contract_findings(episode: RecordedEpisode, contract: Contract) -> list[Finding]:
    """Where the contract isn't one that the episode was recorded under; it may be wanted so, and should be known."""
    info = episode.info
    if contract.interface_hash in info.interface_hashes.values():
        return []
    return [
        Finding("contract", name, f"recorded under {other.name}, frames of {contract.name}: {'; '.join(lines[:6])}")
        for name, other in info.contracts.items()
        if (lines := find_differences(other, contract))
    ]


class _FrameMaker:
    """Makes the columns of pieces of one episode."""

    def __init__(self, episode: RecordedEpisode, contract: Contract, arm: RecordedArm, schema: d.Schema) -> None:
        self._episode, self._contract, self._arm, self._schema = episode, contract, arm, schema
        self._spans = Spans(episode)
        self._executed = ExecutedTargets(episode, arm, contract.action)
        self._wanted = WantedActions(episode, arm, self._spans, contract.action)
        self._truth = Truth(episode, contract, arm)
        self._period_ns = round(contract.action.period_s * 1e9)

    def make(self, piece: tuple[Step, ...], name: str, findings: list[Finding]) -> d.EpisodeFrames:
        try:
            rows = [self._row(step) for step in piece]
        except SensorError as error:
            raise DatasetError(f"{self._episode.info.name}: {error}") from error
        columns = {column.name: _stack(rows, column) for column in self._schema.columns}
        if self._contract.action.space == "tool":
            _go_on(columns[d.ACTION])
            _go_on(columns[d.POLICY_ACTION])
        _go_on(columns[d.TCP_POSE])
        images = FrameImages(self._episode, self._schema, piece)
        found = [*self._episode.findings, *findings, *images.findings, *self._task_findings()]
        return d.EpisodeFrames(
            name=name,
            columns=columns,
            tasks=tuple(self._spans.label(step.stamp_ns) for step in piece),
            read_images=images.read,
            attributes=_attributes(self._episode, self._contract, found),
        )

    def _task_findings(self) -> list[Finding]:
        said, at_start = self._episode.info.task, self._spans.task_at_start
        if not said or at_start in ("", said):
            return []
        text = f"recorded as {said!r} while {at_start!r} was in force at its start; frames have the former"
        return [Finding("task", "task", text)]

    def _row(self, step: Step) -> dict[str, Any]:
        stamp_ns, due_ns = step.stamp_ns, step.stamp_ns + self._period_ns
        state = self._arm.state_at(stamp_ns)
        T_base_tcp = self._arm.tcp(state.positions)
        vector, _ = write_state(self._contract.observation, state, T_base_tcp, self._arm.commanded_opening(stamp_ns))
        executed = self._executed.at(due_ns)
        wanted = self._wanted.at(due_ns)
        return {
            d.STATE: vector,
            d.ACTION: executed.vector,
            d.POLICY_ACTION: np.full(len(executed.vector), np.nan) if wanted is None else wanted,
            d.HAS_POLICY_ACTION: wanted is not None,
            d.STAMP: stamp_ns,
            d.TCP_POSE: pose_vector(T_base_tcp),
            d.JOINT_POSITIONS: state.positions,
            d.SOURCE: self._spans.source(due_ns),
            d.IS_INTERVENTION: self._spans.is_intervention(due_ns),
            d.IS_FILTERED: bool(self._spans.limits(stamp_ns, due_ns)),
            d.IS_HELD: executed.is_held or self._spans.is_at_rest(due_ns),
            d.IS_PADDING: executed.is_padding,
            **self._truth.row(step, self._spans.label(stamp_ns)),
        }


_POSE_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw")
_ROTATION_NAMES = {
    "rotvec": ("rx", "ry", "rz"),
    "rpy": ("roll", "pitch", "yaw"),
    "quat_xyzw": ("qx", "qy", "qz", "qw"),
    "rot6d": ("r11", "r21", "r31", "r12", "r22", "r32"),
    "rot6d_rows": ("r11", "r12", "r13", "r21", "r22", "r23"),
}


def _state_names(contract: Contract, joints: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each entry of the state vector."""
    names: list[str] = []
    for item in contract.observation.state:
        part = state_layout(contract.observation, len(joints))[item.kind]
        if item.kind == "tcp_pose":
            entries: tuple[str, ...] = ("x", "y", "z", *_ROTATION_NAMES[item.rotation])
        elif item.kind in ("joint_positions", "joint_velocities"):
            entries = joints if item.kind == "joint_positions" else tuple(f"{joint}_velocity" for joint in joints)
        else:
            width = part.stop - part.start
            entries = (item.kind,) if width == 1 else tuple(f"{item.kind}_{index}" for index in range(width))
        names += entries
    return tuple(names)


def _stack(rows: list[dict[str, Any]], column: d.Column) -> NDArray[Any]:
    if column.dtype == "string":
        values = np.empty((len(rows), *column.shape), dtype=object)
        values[:, 0] = [row[column.name] for row in rows]
        return values
    return np.array([row[column.name] for row in rows], dtype=column.dtype).reshape(len(rows), *column.shape)


def _go_on(poses: NDArray[Any]) -> None:
    """Quaternions in columns 3 to 6 go on from row to row without changing sides: q and -q are one rotation."""
    before: FloatArray | None = None
    for row in poses:
        if not np.isfinite(row[3:7]).all():
            continue
        if before is not None and float(before @ row[3:7]) < 0.0:
            row[3:7] *= -1.0
        before = row[3:7].copy()


def _piece_name(episode: RecordedEpisode, number: int, count: int) -> str:
    return episode.info.name if count == 1 else f"{episode.info.name}_part{number + 1}"


def _attributes(episode: RecordedEpisode, contract: Contract, findings: list[Finding]) -> Mapping[str, Any]:
    info = episode.info
    return {
        "episode": info.number,
        "task": info.task,
        "outcome": info.outcome,
        "operator": info.operator,
        "note": info.note,
        "robot": info.robot,
        "rig": info.rig.name,
        "contract": contract.name,
        "interface_hash": contract.interface_hash,
        "started_ns": info.started_ns,
        "ended_ns": info.ended_ns,
        "versions": info.versions,
        "recovered": info.recovered,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
