"""Finding topics in a bag by their names relative to the robot's namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vla_ros.errors import RecordingError
from vla_ros.recording.bag import Bag

STATES = "joint_states"
KINDS = {
    STATES: "sensor_msgs/msg/JointState",
    "gripper/state": "sensor_msgs/msg/JointState",
    "gripper/command": "std_msgs/msg/Float64",
    "joint_command": "sensor_msgs/msg/JointState",
    "target": "trajectory_msgs/msg/MultiDOFJointTrajectory",
    "joint_target": "trajectory_msgs/msg/JointTrajectory",
    "safety/verdict": "diagnostic_msgs/msg/DiagnosticArray",
    "episode/event": "std_msgs/msg/String",
    "task": "std_msgs/msg/String",
    "robot_description": "std_msgs/msg/String",
    "tf_static": "tf2_msgs/msg/TFMessage",
}
"""Topics besides the cameras', and their types."""

CHUNK_KINDS = {
    "action_chunk": "trajectory_msgs/msg/MultiDOFJointTrajectory",
    "joint_chunk": "trajectory_msgs/msg/JointTrajectory",
    "observed": "std_msgs/msg/String",
}
"""Last part of the topics of a source, and their types."""

IMAGE_KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_KIND = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class TopicNames:
    """Where in a bag things are.

    Attributes:
        namespace: of the robot, empty for none.
        names: relative name -> name in the bag.
    """

    namespace: str
    names: Mapping[str, str] = field(default_factory=dict)


def find_topics(bag: Bag, image_topics: Iterable[str], given: Mapping[str, str]) -> TopicNames:
    """Finds what is read: under the robot's namespace, at the root, or under the one name that ends like it.

    Args:
        bag: to look in.
        image_topics: relative names of the cameras' image and info topics.
        given: relative name -> name in the bag, where its reader knows better (the namespace under the empty name).

    Raises:
        RecordingError: if several robots fit, there are no joint states, or a topic is of another type.
    """
    namespace = given[""].strip("/") if "" in given else _find_namespace(bag)
    prefix = f"/{namespace}/" if namespace else "/"
    wanted = [*KINDS, *image_topics]
    found = {}
    for name in wanted:
        place = given.get(name) or _find(bag, name, prefix)
        if place is not None:
            if place not in bag.topics:
                raise RecordingError(f"{bag.path}: has no topic {place}, which was given for {name}")
            found[name] = place
    for place in bag.topics:
        relative = place.removeprefix(prefix) if place.startswith(prefix) else ""
        parts = relative.split("/")
        is_policy = len(parts) == 3 and parts[0] == "policies" and parts[2] in CHUNK_KINDS
        if is_policy or (len(parts) == 2 and parts[0] == "teleop" and parts[1] in CHUNK_KINDS):
            found[relative] = place
    for name, place in found.items():
        _check_kind(bag, name, place)
    return TopicNames(namespace, found)


def _find_namespace(bag: Bag) -> str:
    ends = [name for name in bag.topics if name.endswith(f"/{STATES}")]
    if not ends:
        raise RecordingError(
            f"{bag.path}: no topic ends in {STATES} (it has {_listing(bag)}), and without the arm's state there are no "
            f"frames; name the topic with --topic {STATES}:=NAME if it is another one"
        )
    spaces = [name.removesuffix(STATES).strip("/") for name in ends]
    counts = [sum(name.startswith(f"/{space}/" if space else "/") for name in bag.topics) for space in spaces]
    if "" in spaces and len(spaces) > 1:
        # At the root all names fit: it counts what belongs to none of the others.
        others = [space for space in spaces if space]
        counts[spaces.index("")] = sum(
            not any(name.startswith(f"/{space}/") for space in others) for name in bag.topics
        )
    best = max(counts)
    fitting = [space for space, count in zip(spaces, counts, strict=True) if count == best]
    if len(fitting) > 1:
        raise RecordingError(f"{bag.path}: several robots, in the namespaces {fitting}; name one with --namespace")
    return fitting[0]


def _find(bag: Bag, name: str, prefix: str) -> str | None:
    if name.startswith("/"):
        return name if name in bag.topics else None
    for place in (f"{prefix}{name}", f"/{name}"):
        if place in bag.topics:
            return place
    ends = [place for place in bag.topics if place.endswith(f"/{name}")]
    return ends[0] if len(ends) == 1 else None


def _check_kind(bag: Bag, name: str, place: str) -> None:
    kind = bag.topics[place].kind
    last = name.rpartition("/")[2]
    if name in KINDS:
        expected: tuple[str, ...] = (KINDS[name],)
    elif name.startswith(("policies/", "teleop/")):
        expected = (CHUNK_KINDS[last],)
    else:
        expected = (INFO_KIND,) if last == "camera_info" else IMAGE_KINDS
    if kind not in expected:
        raise RecordingError(f"{bag.path}: {place} is of type {kind}, needs {' or '.join(expected)}")


def _listing(bag: Bag) -> str:
    names = sorted(bag.topics)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "no topics"
