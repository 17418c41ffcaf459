"""A bag's messages of one topic as values: joint states, targets, openings, chunks, verdicts, words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.actions.wire import (
    GRIPPER,
    TCP_ABSOLUTE,
    from_joint_chunk_message,
    from_tool_chunk_message,
    to_ns,
)
from vla_ros.errors import ChunkError, RecordingError, SensorError
from vla_ros.geometry import rotations, se3
from vla_ros.recording.bag import Bag
from vla_ros.recording.cdr import Table, tabulate
from vla_ros.recording.clocks import put_in_order
from vla_ros.recording.recorded import Finding, RecordedChunk, RecordedEvent, RecordedVerdict, Series, TargetSeries
from vla_ros.robots.config import RobotConfig
from vla_ros.robots.state_buffer import find_joints
from vla_ros.types import FloatArray, MotionState


@dataclass
class Heard:
    """The messages of a topic, in the bag's order.

    Attributes:
        topic: in the bag.
        received_ns: of each.
        order: of each, its place among all messages that were read.
        data: CDR.
    """

    topic: str
    received_ns: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class _Rows:
    """Values of messages: `rows` says of which, the rest is by row."""

    rows: NDArray[np.intp]
    stamps_ns: NDArray[np.int64]
    values: FloatArray
    extra: FloatArray


class Streams:
    """Reads topics of one bag and keeps what it finds on the way.

    Args:
        bag: open.
        robot: whose joints and frames are meant.
    """

    def __init__(self, bag: Bag, robot: RobotConfig) -> None:
        self._bag, self._robot = bag, robot
        self.findings: list[Finding] = []

    def joints(self, heard: Heard | None, is_needed: bool = False) -> tuple[Series, Series, list[int]]:
        """Positions and velocities of sensor_msgs/JointState, and each one's place among all messages.

        Raises:
            RecordingError: if none of the messages has the robot's joints, and they are needed.
        """
        names = self._robot.joint_names
        tables, problems = [], []
        for table in self._tables(heard):
            said = table.layout.texts["name"]
            try:
                index = find_joints(said, names, table_topic(heard))
            except SensorError as error:
                problems.append((str(error), len(table.rows)))
                continue
            positions, velocities = table.column("position"), table.column("velocity")
            if positions.shape[1] != len(said):
                problems.append((f"{positions.shape[1]} positions for {len(said)} names", len(table.rows)))
                continue
            if velocities.shape[1] != len(said):
                velocities = np.zeros_like(positions)
            tables.append(_Rows(table.rows, table.stamps_ns(), positions[:, index], velocities[:, index]))
        for text, count in problems:
            if is_needed and not tables:
                raise RecordingError(f"{self._bag.path}: {text}")
            self._find("value", heard, f"{count} messages left out: {text}", count)
        rows = self._join(tables, heard, len(names), len(names))
        order = [heard.order[row] for row in rows.rows] if heard is not None else []
        return Series(rows.stamps_ns, rows.values), Series(rows.stamps_ns, rows.extra), order

    def tool_targets(self, heard: Heard | None) -> TargetSeries:
        """One absolute pose a message, and an opening where there is one."""
        tables = []
        for table in self._tables(heard):
            names, frame = table.layout.texts["joint_names"], table.layout.texts["header.frame_id"]
            is_one = table.layout.counts.get("points") == 1
            transforms = table.layout.counts.get("points[0].transforms", 0)
            if list(names)[:1] != [TCP_ABSOLUTE] or frame != self._robot.base_frame or not is_one:
                text = (
                    f"joint_names {names} in {frame!r}; needs one pose {TCP_ABSOLUTE!r} in {self._robot.base_frame!r}"
                )
                self._find("value", heard, f"{len(table.rows)} messages left out: {text}", len(table.rows))
                continue
            if transforms != len(names):
                text = f"{len(table.rows)} messages left out: {transforms} transforms for joint_names {names}"
                self._find("value", heard, text, len(table.rows))
                continue
            values = np.concatenate([_column(table, "points[0].transforms[0]", part) for part in _TRANSFORM], axis=1)
            openings = np.full((len(values), 1), np.nan)
            if GRIPPER in names:
                place = list(names).index(GRIPPER)
                openings = _column(table, f"points[0].transforms[{place}]", "translation.x")
            tables.append(_Rows(table.rows, table.stamps_ns(), values, openings))
        rows = self._join(tables, heard, 7, 1, is_rotation=True)
        poses = se3.make_pose(rows.values[:, :3], rotations.quat_xyzw_to_matrix(rows.values[:, 3:]))
        return TargetSeries(rows.stamps_ns, poses.reshape(-1, 4, 4), rows.extra[:, 0])

    def joint_targets(self, heard: Heard | None) -> TargetSeries:
        """One posture a message, and an opening where there is one."""
        tables, width = [], len(self._robot.joint_names)
        for table in self._tables(heard):
            names = list(table.layout.texts["joint_names"])
            positions = table.column("points[0].positions")
            try:
                index = find_joints(names, self._robot.joint_names, table_topic(heard))
            except SensorError as error:
                self._find("value", heard, f"{len(table.rows)} messages left out: {error}", len(table.rows))
                continue
            if table.layout.counts.get("points") != 1 or positions.shape[1] != len(names):
                text = f"{len(table.rows)} messages left out: not one point with a position for each of {names}"
                self._find("value", heard, text, len(table.rows))
                continue
            openings = np.full((len(positions), 1), np.nan)
            if GRIPPER in names:
                openings = positions[:, [names.index(GRIPPER)]]
            tables.append(_Rows(table.rows, table.stamps_ns(), positions[:, index], openings))
        rows = self._join(tables, heard, width, 1)
        return TargetSeries(rows.stamps_ns, rows.values, rows.extra[:, 0])

    def gripper_states(self, heard: Heard | None) -> tuple[Series, list[int]]:
        """(n,) openings: the first position of each JointState; and each one's place among all messages."""
        tables = []
        for table in self._tables(heard):
            values, stamps_ns = table.column("position")[:, :1], table.stamps_ns()
            if heard is not None and not stamps_ns.all():
                stamps_ns = np.array(heard.received_ns, dtype=np.int64)[table.rows]
            if values.shape[1]:
                tables.append(_Rows(table.rows, stamps_ns, values, np.zeros((len(values), 0))))
        rows = self._join(tables, heard, 1, 0)
        order = [heard.order[row] for row in rows.rows] if heard is not None else []
        return Series(rows.stamps_ns, rows.values[:, 0]), order

    def gripper_commands(self, heard: Heard | None) -> Series:
        """(n,) openings, clipped to [0, 1], at the times of their reception."""
        tables = []
        for table in self._tables(heard):
            received = np.array(heard.received_ns, dtype=np.int64)[table.rows] if heard else np.zeros(0, np.int64)
            values = table.column("data")
            tables.append(_Rows(table.rows, received, np.clip(values, 0.0, 1.0), np.zeros((len(values), 0))))
        rows = self._join(tables, heard, 1, 0)
        return Series(rows.stamps_ns, rows.values[:, 0])

    def chunks(self, heard: Heard, source: str, is_tool: bool) -> list[RecordedChunk]:
        """Chunks of one source; what the filter would refuse for its form is left out, too."""
        found = []
        robot = self._robot
        for received_ns, data in zip(heard.received_ns, heard.data, strict=True):
            message = self._bag.decode(heard.topic, data)
            try:
                if is_tool:
                    tool = from_tool_chunk_message(message, source, robot.tcp_frame, robot.base_frame)
                    found.append(RecordedChunk(received_ns, tool))
                else:
                    joint = from_joint_chunk_message(message, source, robot.joint_names)
                    found.append(RecordedChunk(received_ns, joint))
            except ChunkError as error:
                self.findings.append(Finding("value", heard.topic, f"chunk left out: {error}", received_ns))
        return found

    def verdicts(self, heard: Heard | None) -> list[RecordedVerdict]:
        """States, sources and limits that acted, by stamp."""
        found = []
        for data in heard.data if heard is not None else ():
            message = self._bag.decode(table_topic(heard), data)
            for status in message.status:
                values = {item.key: item.value for item in status.values}
                try:
                    state = MotionState(status.message)
                except ValueError:
                    self._find("value", heard, f"verdict left out: state {status.message!r} isn't known", 1)
                    continue
                source = values.pop("source", "")
                found.append(RecordedVerdict(to_ns(message.header.stamp), state, source, values))
        return sorted(found, key=lambda verdict: verdict.stamp_ns)

    def objects(self, heard: Heard | None) -> list[tuple[int, Mapping[str, Any]]]:
        """(received, JSON object) of std_msgs/String; what isn't one is left out."""
        found: list[tuple[int, Mapping[str, Any]]] = []
        for received_ns, text in self.texts(heard):
            try:
                values = json.loads(text)
            except ValueError:
                values = None
            if isinstance(values, dict):
                found.append((received_ns, values))
            else:
                self._find("value", heard, f"{text[:80]!r} isn't a JSON object", 1)
        return found

    def events(self, heard: Heard | None) -> list[RecordedEvent]:
        """Of `episode/event`, by time."""
        found = [
            RecordedEvent(_stamp(values, received_ns), str(values.get("event", "")), values)
            for received_ns, values in self.objects(heard)
        ]
        return sorted(found, key=lambda event: event.stamp_ns)

    def texts(self, heard: Heard | None) -> list[tuple[int, str]]:
        """(received, text) of std_msgs/String."""
        if heard is None:
            return []
        pairs = zip(heard.received_ns, heard.data, strict=True)
        return [(received_ns, str(self._bag.decode(heard.topic, data).data)) for received_ns, data in pairs]

    def _tables(self, heard: Heard | None) -> Sequence[Table]:
        if heard is None:
            return ()
        tables = list(tabulate(heard.data, self._bag.fields, self._bag.topics[heard.topic].kind))
        unread = len(heard.data) - sum(len(table.rows) for table in tables)
        if unread:
            self._find("value", heard, f"{unread} of {len(heard.data)} messages can't be read", unread)
        return tables

    def _join(
        self, tables: Sequence[_Rows], heard: Heard | None, width: int, extra: int, is_rotation: bool = False
    ) -> _Rows:
        """Rows of all tables by stamp, without those that aren't finite."""
        rows = _Rows(
            np.concatenate([np.zeros(0, np.intp), *(table.rows for table in tables)]),
            np.concatenate([np.zeros(0, np.int64), *(table.stamps_ns for table in tables)]),
            np.concatenate([np.zeros((0, width)), *(table.values for table in tables)]),
            np.concatenate([np.zeros((0, extra)), *(table.extra for table in tables)]),
        )
        is_good: NDArray[np.bool_] = np.asarray(np.isfinite(rows.values).all(axis=1))
        if extra > 1:
            is_good &= np.isfinite(rows.extra).all(axis=1)
        if is_rotation:
            is_good &= np.linalg.norm(rows.values[:, 3:], axis=1) > 1e-6
        bad = int(np.count_nonzero(~is_good))
        if bad:
            first = int(rows.stamps_ns[~is_good][0])
            text = f"{bad} of {len(is_good)} messages left out: values that aren't finite, or no rotation"
            self.findings.append(Finding("value", table_topic(heard), text, first, bad))
        came = np.argsort(rows.rows[is_good], kind="stable")
        kept = np.flatnonzero(is_good)[came]
        received = np.array(heard.received_ns if heard else [], dtype=np.int64)[rows.rows[kept]]
        order, findings = put_in_order(rows.stamps_ns[kept], received, table_topic(heard))
        self.findings += findings
        taken = kept[order]
        return _Rows(rows.rows[taken], rows.stamps_ns[taken], rows.values[taken], rows.extra[taken])

    def _find(self, kind: str, heard: Heard | None, text: str, count: int) -> None:
        stamp_ns = heard.received_ns[0] if heard is not None and heard.received_ns else None
        self.findings.append(Finding(kind, table_topic(heard), text, stamp_ns, count))


_TRANSFORM = ("translation.x", "translation.y", "translation.z", "rotation.x", "rotation.y", "rotation.z", "rotation.w")


def table_topic(heard: Heard | None) -> str:
    """Name of a topic that may be missing."""
    return "" if heard is None else heard.topic


def _column(table: Table, path: str, part: str) -> FloatArray:
    return np.asarray(table.column(f"{path}.{part}"), dtype=np.float64)


def _stamp(values: Mapping[str, Any], received_ns: int) -> int:
    stamp_ns = values.get("stamp_ns")
    return stamp_ns if isinstance(stamp_ns, int) else received_ns
