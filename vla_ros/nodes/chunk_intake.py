"""Action chunks of any source, read and checked: who sends what is told by the topic's name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from vla_ros.errors import ChunkError, VlaRosError
from vla_ros.nodes import chunk_messages
from vla_ros.nodes.runtime import SENSOR
from vla_ros.nodes.streams import Streams
from vla_ros.robots.config import RobotConfig
from vla_ros.types import JointChunk, ToolChunk

TELEOP = "teleop"


class ChunkIntake:
    """Subscribes to the chunks of sources by name.

    Args:
        node: whose topics they are.
        streams: subscribes and calls back.
        robot: whose joints and frames chunks are about.
        on_chunk: called with each good chunk and the time, ns, at which it was sent.
        on_refusal: called with the reason for each bad one.
    """

    def __init__(
        self,
        node: Node,
        streams: Streams,
        robot: RobotConfig,
        on_chunk: Callable[[ToolChunk | JointChunk, int], None],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._node, self._streams, self._robot = node, streams, robot
        self._on_chunk, self._on_refusal = on_chunk, on_refusal
        self._sources: set[str] = set()

    def listen(self, source: str) -> None:
        """Hears a source from now on; the empty name is nobody.

        Raises:
            VlaRosError: for a name that can't be part of a topic's.
        """
        if not source or source in self._sources:
            return
        if not re.fullmatch(r"[A-Za-z_]\w*", source, re.ASCII):
            raise VlaRosError(f"source {source!r} can't be part of a topic's name; use letters, digits and _")
        self._sources.add(source)
        base, tcp = self._robot.base_frame, self._robot.tcp_frame
        read_tool = functools.partial(
            chunk_messages.from_serialised_tool_chunk, source=source, tcp_frame=tcp, base_frame=base
        )
        read_joint = functools.partial(
            chunk_messages.from_joint_chunk_message, source=source, joint_names=self._robot.joint_names
        )
        tool_topic, joint_topic = _topics(source)
        on_tool, on_joint = (functools.partial(self._take, read) for read in (read_tool, read_joint))
        self._streams.subscribe(MultiDOFJointTrajectory, tool_topic, on_tool, SENSOR, is_raw=True)
        self._streams.subscribe(JointTrajectory, joint_topic, on_joint, SENSOR)

    def topics(self, source: str) -> list[str]:
        """The resolved names of a source's topics."""
        return [self._node.resolve_topic_name(topic) for topic in _topics(source)] if source else []

    def _take(self, read: Callable[[Any], ToolChunk | JointChunk], message: Any, info: Any) -> None:
        try:
            chunk = read(message)
        except ChunkError as error:
            self._on_refusal(str(error))
            return
        self._on_chunk(chunk, int(info["source_timestamp"]))


def _topics(source: str) -> tuple[str, str]:
    prefix = source if source == TELEOP else f"policies/{source}"
    return f"{prefix}/action_chunk", f"{prefix}/joint_chunk"
