"""What was heard in one episode, and its table: one row per command."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from vla_ros.evaluation.differences import StampArray, mean_derivatives
from vla_ros.files import whole_file
from vla_ros.types import FloatArray, MotionState

EpisodeOutcome = Literal["success", "failure", "timeout"]

# Keys of a verdict that name who moves or how, not a limit.
_NO_LIMITS = frozenset({"source", "chunk", *(state.value for state in MotionState)})


@dataclass(frozen=True, eq=False)
class Samples:
    """Something measured over time.

    Attributes:
        stamps_ns: (n,) in the order of arrival.
        values: (n, d).
    """

    stamps_ns: StampArray
    values: FloatArray

    @classmethod
    def collect(cls, items: Sequence[tuple[int, Sequence[float]]], width: int) -> Samples:
        """Of (stamp_ns, d values) one after the other; `width` is d."""
        stamps_ns = np.array([stamp_ns for stamp_ns, _ in items], dtype=np.int64)
        return cls(stamps_ns, np.array([values for _, values in items], dtype=np.float64).reshape(len(items), width))

    def newest_at(self, stamps_ns: StampArray) -> FloatArray:
        """(len(stamps_ns), d): at each stamp the newest value that isn't later, NaN where there is none."""
        order = np.argsort(self.stamps_ns, kind="stable")
        index = np.searchsorted(self.stamps_ns[order], stamps_ns, side="right")
        return np.vstack((np.full((1, self.values.shape[1]), np.nan), self.values[order]))[index]


@dataclass(frozen=True)
class VerdictChange:
    """The safety filter's state from a stamp on, and why."""

    stamp_ns: int
    state: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class EpisodeLog:
    """One episode.

    Attributes:
        task: the instruction.
        seed: of the scene.
        start_ns: when the task was given; time 0 of the table and the picture.
        joint_names: (j) the arm's joints.
        command_positions: (n, j) rad, stamped with the ticks' nominal times.
        command_velocities: (n, j) rad/s, at the same stamps.
        measured_positions: (m, j) rad.
        gripper_opening: (m, 1) measured, 0 closed .. 1 open.
        tcp_positions: (m, 3) true tcp in base, m.
        block_positions: of each block (m, 3) true, in base, m.
        verdicts: changes of the safety filter's state, in order.
        camera_stamps_ns: of each camera the stamps of its images.
        outcome: how it ended.
        duration_s: from `start_ns` to the outcome.
        reason: for a person: why it ended so.
        limit_hits: how often a limit began to act, by its name.
    """

    task: str
    seed: int
    start_ns: int
    joint_names: tuple[str, ...]
    command_positions: Samples
    command_velocities: Samples
    measured_positions: Samples
    gripper_opening: Samples
    tcp_positions: Samples
    block_positions: Mapping[str, Samples]
    verdicts: tuple[VerdictChange, ...]
    camera_stamps_ns: Mapping[str, StampArray]
    outcome: EpisodeOutcome
    duration_s: float
    reason: str = ""
    limit_hits: Mapping[str, int] = field(default_factory=dict)

    @property
    def command_stamps_ns(self) -> StampArray:
        return self.command_positions.stamps_ns

    @property
    def command_times_s(self) -> FloatArray:
        """(n,) since the task was given."""
        times_s: FloatArray = np.asarray(self.command_stamps_ns - self.start_ns, dtype=np.float64) * 1e-9
        return times_s

    def command_accelerations(self) -> FloatArray:
        """(n, j) rad/s^2: second differences of the positions around each tick, NaN at both ends."""
        accelerations = np.full_like(self.command_positions.values, np.nan)
        accelerations[1:-1] = mean_derivatives(self.command_stamps_ns, self.command_positions.values, 2)
        return accelerations

    def verdict_states_at(self, stamps_ns: StampArray) -> list[str]:
        """The safety filter's state at each stamp, empty before the first is known."""
        states = ["", *(verdict.state for verdict in self.verdicts)]
        index = np.searchsorted([verdict.stamp_ns for verdict in self.verdicts], stamps_ns, side="right")
        return [states[i] for i in index]

    def columns(self) -> list[str]:
        """Names of the table's columns, with their units."""
        names = ["time_s", "stamp_ns"]
        for quantity in ("command_rad", "command_rad_s", "command_rad_s2", "measured_rad"):
            names += [f"{joint}_{quantity}" for joint in self.joint_names]
        return [*names, "gripper_opening", "tcp_x_m", "tcp_y_m", "tcp_z_m", "verdict"]

    def rows(self) -> Iterator[list[str]]:
        """The table's rows, one per command; what isn't known is empty, numbers read back exactly."""
        stamps_ns = self.command_stamps_ns
        numbers = np.hstack(
            (
                self.command_positions.values,
                self.command_velocities.values,
                self.command_accelerations(),
                self.measured_positions.newest_at(stamps_ns),
                self.gripper_opening.newest_at(stamps_ns),
                self.tcp_positions.newest_at(stamps_ns),
            )
        ).tolist()
        times_s, states = self.command_times_s.tolist(), self.verdict_states_at(stamps_ns)
        for time_s, stamp_ns, row, state in zip(times_s, stamps_ns.tolist(), numbers, states, strict=True):
            yield [f"{time_s:.6f}", str(stamp_ns), *("" if x != x else repr(x) for x in row), state]

    def write_csv(self, path: Path) -> None:
        """Writes the table; the file is there whole or not at all."""
        with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns())
            writer.writerows(self.rows())


@dataclass
class EpisodeRecorder:
    """Takes what is heard while an episode runs. Each `add_` is one append: any thread may call it, often.

    Attributes:
        task: the instruction.
        seed: of the scene.
        joint_names: the arm's joints, in the order of all positions given here.
        start_ns: when the task was given.
    """

    task: str
    seed: int
    joint_names: tuple[str, ...]
    start_ns: int
    _commands: list[tuple[int, Sequence[float], Sequence[float]]] = field(default_factory=list)
    _measured: list[tuple[int, Sequence[float]]] = field(default_factory=list)
    _gripper: list[tuple[int, Sequence[float]]] = field(default_factory=list)
    _tcp: list[tuple[int, Sequence[float]]] = field(default_factory=list)
    _blocks: dict[str, list[tuple[int, Sequence[float]]]] = field(default_factory=dict)
    _verdicts: list[VerdictChange] = field(default_factory=list)
    _cameras: dict[str, list[int]] = field(default_factory=dict)
    _limits: dict[str, int] = field(default_factory=dict)
    _acting: frozenset[str] = frozenset()

    def add_command(self, stamp_ns: int, positions: Sequence[float], velocities: Sequence[float]) -> None:
        """A joint command: nominal time, (j) rad, (j) rad/s."""
        self._commands.append((stamp_ns, tuple(positions), tuple(velocities)))

    def add_measured(self, stamp_ns: int, positions: Sequence[float]) -> None:
        """Measured joint positions, (j) rad."""
        self._measured.append((stamp_ns, tuple(positions)))

    def add_gripper(self, stamp_ns: int, opening: float) -> None:
        """Measured gripper opening."""
        self._gripper.append((stamp_ns, (opening,)))

    def add_truth(self, stamp_ns: int, p_base_tcp: Sequence[float], blocks: Mapping[str, Sequence[float]]) -> None:
        """The simulator's truth: positions (3) of tcp and blocks in base, m."""
        self._tcp.append((stamp_ns, tuple(p_base_tcp)))
        for name, p_base_block in blocks.items():
            self._blocks.setdefault(name, []).append((stamp_ns, tuple(p_base_block)))

    def add_verdict(self, stamp_ns: int, state: str, reasons: Sequence[str] = ()) -> None:
        """The safety filter's verdict; one that says the same as the last is passed over."""
        reasons = tuple(reasons)
        if not self._verdicts or (self._verdicts[-1].state, self._verdicts[-1].reasons) != (state, reasons):
            self._verdicts.append(VerdictChange(stamp_ns, state, reasons))

    def add_limits(self, names: Iterable[str]) -> None:
        """The limits that act at present; one is counted where it begins to. That the filter holds is none."""
        acting = frozenset(names) - _NO_LIMITS
        for name in acting - self._acting:
            self._limits[name] = self._limits.get(name, 0) + 1
        self._acting = acting

    def add_image(self, camera: str, stamp_ns: int) -> None:
        """An image arrived."""
        self._cameras.setdefault(camera, []).append(stamp_ns)

    def finish(self, outcome: EpisodeOutcome, duration_s: float, reason: str = "") -> EpisodeLog:
        """The log of all that was taken."""
        commands, joints = list(self._commands), len(self.joint_names)
        return EpisodeLog(
            task=self.task,
            seed=self.seed,
            start_ns=self.start_ns,
            joint_names=self.joint_names,
            command_positions=Samples.collect([(stamp, positions) for stamp, positions, _ in commands], joints),
            command_velocities=Samples.collect([(stamp, velocities) for stamp, _, velocities in commands], joints),
            measured_positions=Samples.collect(list(self._measured), joints),
            gripper_opening=Samples.collect(list(self._gripper), 1),
            tcp_positions=Samples.collect(list(self._tcp), 3),
            block_positions={name: Samples.collect(list(items), 3) for name, items in dict(self._blocks).items()},
            verdicts=tuple(sorted(self._verdicts, key=lambda verdict: verdict.stamp_ns)),
            camera_stamps_ns={name: np.array(stamps, dtype=np.int64) for name, stamps in dict(self._cameras).items()},
            outcome=outcome,
            duration_s=duration_s,
            reason=reason,
            limit_hits=dict(self._limits),
        )
