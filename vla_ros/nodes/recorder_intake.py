"""All that belongs into a bag, serialised, as it comes: whoever publishes it, and from when on."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import ROSClock
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from std_msgs.msg import String

from vla_ros.contract import Rig
from vla_ros.nodes.runtime import now_ns
from vla_ros.nodes.streams import Polled
from vla_ros.recording.bag_writer import Topic
from vla_ros.recording.topic_names import STATES
from vla_ros.recording.topics import EVENT_TOPIC, STRING, fixed_topics, policy_topic

DEPTH = 4000
"""Messages of a topic that DDS keeps for us: what comes after a lost one waits until that was sent again, which may be
the three seconds of a heartbeat later, and what doesn't fit then is lost, too."""
_POLL_S = 0.01
_STATIC_KEPT, _SEEN_KEPT = 100, DEPTH
# In force until another comes, whoever published them.
_STATES = ("task", "robot_description", "gripper/command")

_Sink = Callable[[Topic, int, bytes], None]
_Quality = tuple[ReliabilityPolicy, DurabilityPolicy]


class _Heard:
    """A topic with our subscriptions to it."""

    def __init__(self, topic: Topic, relative: str) -> None:
        self.topic, self.relative = topic, relative
        self.qualities: set[_Quality] = set()
        self._seen: dict[Any, None] = {}
        self._numbers: dict[Any, int] = {}
        self.lost = 0
        """Messages that their publishers sent and that never came, by their own count."""

    def is_new(self, info: dict[str, Any]) -> bool:
        """False for what another of our subscriptions brought already."""
        key = ((info.get("publisher_gid") or {}).get("data"), info["source_timestamp"])
        if key in self._seen:
            return False
        self._seen[key] = None
        self._count(key[0], info.get("publication_sequence_number"))
        if len(self._seen) > _SEEN_KEPT:
            del self._seen[next(iter(self._seen))]
        return True

    def _count(self, publisher: Any, number: int | None) -> None:
        if number:
            last = self._numbers.get(publisher, number)
            self.lost += max(0, number - last - 1)
            self._numbers[publisher] = max(number, last)


class RecorderIntake:
    """Subscribes as publishers offer, and hands on what comes in a thread of its own.

    A publisher is heard under the quality that it offers: reliable ones without loss, latched ones with what they said
    before. Messages of one look are handed on in the order of their times of arrival.

    Args:
        node: subscribes.
        rig: the cell.
        sink: called with the topic, the time of arrival in ns and the message, serialised.
        states: where the arm's joint states are; in the bag they are `joint_states` whatever their driver calls them.
    """

    def __init__(self, node: Node, rig: Rig, sink: _Sink, states: str = STATES) -> None:
        self._node, self._sink = node, sink
        self._fixed = {
            node.resolve_topic_name(states if topic.name == STATES else topic.name): topic
            for topic in fixed_topics(rig)
        }
        self._bag_names = {node.resolve_topic_name(states): node.resolve_topic_name(STATES)}
        # The namespace, as remapping leaves it.
        self._prefix = node.resolve_topic_name("policies/x/observed").removesuffix("policies/x/observed")
        self._polled = Polled(node, most=DEPTH)
        self._heard: dict[str, _Heard] = {}
        self._arrived: list[tuple[int, _Heard, bytes]] = []
        self._latched: dict[str, list[bytes]] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._refused: set[str] = set()
        self.policies: set[str] = set()
        """Those whose topics were found."""
        self.task = ""
        """The instruction in force, whoever gave it: the topic `task`, or a launch file to the policy."""
        self.newest: dict[str, bytes] = {}
        """The newest message of each topic that isn't an image, by its relative name."""
        self.failure: BaseException | None = None
        """What ended the thread, if not `close`."""
        for name, topic in self._fixed.items():
            # Who says something once and goes isn't found in time.
            if topic.type == STRING:
                self._subscribe(name, topic.name, topic.type, (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE))
        self._thread = threading.Thread(target=self._run, name="recorder intake", daemon=True)
        self._thread.start()

    def discover(self) -> None:
        """Subscribes to what is published since the last time. The executor's thread, some times a second."""
        for name, kinds in self._node.get_topic_names_and_types():
            relative, kind = self._wanted(name)
            if not kind:
                continue
            if kinds != [kind]:
                if name not in self._refused:
                    self._refused.add(name)
                    self._node.get_logger().error(f"{name} has type {', '.join(kinds)} and not {kind}: not recorded")
                continue
            publishers = [
                publisher
                for publisher in self._node.get_publishers_info_by_topic(name)
                if (publisher.node_name, publisher.node_namespace)
                != (self._node.get_name(), self._node.get_namespace())
            ]
            for publisher in publishers:
                self._hear(name, relative, kind, publisher)

    def latched(self, without: str = "") -> Sequence[tuple[Topic, bytes]]:
        """What is in force now: task, gripper command, the robot's description, static transforms, an intervention.

        Args:
            without: relative name of a topic to be left out.
        """
        with self._lock:
            heard = ((self._heard[name], kept) for name, kept in self._latched.items())
            return [(item.topic, data) for item, kept in heard if item.relative != without for data in kept]

    def lost(self) -> dict[str, int]:
        """Messages that were published and never came, by topic, since the start; where DDS numbers them."""
        return {name: heard.lost for name, heard in self._heard.items() if heard.lost}

    def topics(self) -> list[str]:
        """Resolved names of what is heard."""
        return sorted(self._heard)

    def missing(self) -> list[str]:
        """Names of topics that every bag of this cell needs and nobody publishes."""
        wanted = [name for name, topic in self._fixed.items() if topic.is_required]
        return [name for name in wanted if not self._node.count_publishers(name)]

    def close(self) -> None:
        """Ends the thread after what has come; the node's owner takes the subscriptions off it."""
        self._is_over.set()
        self._thread.join(timeout=2.0)
        self._polled.close()

    def _wanted(self, name: str) -> tuple[str, str]:
        """The relative name and the type of a topic that belongs into a bag; empty for any other."""
        if name in self._fixed:
            return self._fixed[name].name, self._fixed[name].type
        if name.startswith(self._prefix):
            relative = name.removeprefix(self._prefix)
            found = policy_topic(relative)
            if found is not None:
                self.policies.add(found[0])
                return relative, found[1]
        return "", ""

    def _hear(self, name: str, relative: str, kind: str, publisher: TopicEndpointInfo) -> None:
        offered = publisher.qos_profile
        quality = (offered.reliability, offered.durability)
        heard = self._heard.get(name)
        if heard is None or quality not in heard.qualities:
            self._subscribe(name, relative, kind, quality, _to_bag_qos(offered))

    def _subscribe(self, name: str, relative: str, kind: str, quality: _Quality, offered: Qos | None = None) -> None:
        with self._lock:
            heard = self._heard.setdefault(name, _Heard(Topic(self._bag_names.get(name, name), kind), relative))
            heard.qualities.add(quality)
            if offered is not None and not heard.topic.qos:
                heard.topic = Topic(heard.topic.name, kind, (offered,))
        profile = QoSProfile(
            reliability=quality[0], durability=quality[1], history=HistoryPolicy.KEEP_LAST, depth=DEPTH
        )

        def take(data: bytes, info: dict[str, Any]) -> None:
            if heard.is_new(info):
                self._arrived.append((self._stamp_ns(info), heard, data))

        self._polled.subscribe(_message_class(kind), name, take, profile, is_raw=True)

    def _stamp_ns(self, info: dict[str, Any]) -> int:
        clock = self._node.get_clock()
        is_simulated = isinstance(clock, ROSClock) and clock.ros_time_is_active
        return now_ns(self._node) if is_simulated else int(info["received_timestamp"] or now_ns(self._node))

    def _run(self) -> None:
        try:
            while not self._is_over.wait(_POLL_S) and self._node.context.ok():
                self._polled.take()
                arrived, self._arrived = sorted(self._arrived, key=lambda item: item[0]), []
                for stamp_ns, heard, data in arrived:
                    self._keep(heard, data)
                    self._sink(heard.topic, stamp_ns, data)
        # Told by the node: silence here would be an empty bag.
        except BaseException as error:
            self.failure = error

    def _keep(self, heard: _Heard, data: bytes) -> None:
        is_static = heard.relative == "/tf_static"
        if heard.relative in _STATES or is_static:
            with self._lock:
                kept = self._latched.setdefault(heard.topic.name, [])
                if data in kept and is_static:
                    return
                kept.append(data)
                del kept[: -(_STATIC_KEPT if is_static else 1)]
        if heard.relative == "task":
            self.task = str(deserialize_message(data, String).data).strip()
        elif heard.relative == EVENT_TOPIC:
            self._keep_event(heard, data)
        if heard.relative != EVENT_TOPIC and "image" not in heard.relative.rpartition("/")[2]:
            self.newest[heard.relative] = data

    def _keep_event(self, heard: _Heard, data: bytes) -> None:
        """What outlasts an event: the instruction in force, and that a person took the arm from a policy."""
        try:
            event = json.loads(str(deserialize_message(data, String).data))
        except ValueError:  # Others may publish there, too.
            return
        name = event.get("event") if isinstance(event, dict) else None
        if name == "task" and isinstance(event.get("task"), str):
            self.task = event["task"]
        elif name in ("intervention_start", "intervention_end"):
            with self._lock:
                self._latched[heard.topic.name] = [data] if name == "intervention_start" else []


def _message_class(kind: str) -> type:
    """The class of a type such as `std_msgs/msg/String`."""
    package, _, name = kind.partition("/msg/")
    found: type = getattr(importlib.import_module(f"{package}.msg"), name)
    return found


_DURABILITY = {
    DurabilityPolicy.TRANSIENT_LOCAL: QosDurability.TRANSIENT_LOCAL,
    DurabilityPolicy.VOLATILE: QosDurability.VOLATILE,
}
_RELIABILITY = {
    ReliabilityPolicy.RELIABLE: QosReliability.RELIABLE,
    ReliabilityPolicy.BEST_EFFORT: QosReliability.BEST_EFFORT,
}


def _to_bag_qos(profile: QoSProfile) -> Qos:
    """What a publisher offers as a bag has it: `ros2 bag play` publishes under it."""
    for_ever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        profile.depth or 10,
        _RELIABILITY.get(profile.reliability, QosReliability.SYSTEM_DEFAULT),
        _DURABILITY.get(profile.durability, QosDurability.SYSTEM_DEFAULT),
        for_ever,
        for_ever,
        QosLiveliness.AUTOMATIC,
        for_ever,
        False,
    )
