"""Finding topics in a bag by their names relative to the robot's namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vla_ros.errors import RecordingError, did_you_mean
from vla_ros.recording.bag import Bag
from vla_ros.recording.topics import CAMERA_INFO, COMPRESSED_IMAGE, FIXED, IMAGE, OF_A_SOURCE

STATES = "joint_states"
_NOT_READ = frozenset({"/tf", "/diagnostics", "teleop/action_chunk", "teleop/joint_chunk"})
KINDS = {name.lstrip("/"): kind for name, kind in FIXED.items() if name not in _NOT_READ}
"""Topics besides the cameras' and the sources', and their types."""


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
    image_topics = tuple(image_topics)
    _check_given(bag, given, (*KINDS, *image_topics))
    namespace = given[""].strip("/") if "" in given else _find_namespace(bag, given.get(STATES, ""))
    prefix = f"/{namespace}/" if namespace else "/"
    own = [place for place in bag.topics if not _is_of_another_robot(bag, place, prefix)]
    found = {}
    for name in [*KINDS, *image_topics]:
        place = given.get(name) or _find(bag, name, prefix, own)
        if place is not None:
            if place not in bag.topics:
                raise RecordingError(f"{bag.path}: has no topic {place}, which was given for {name}")
            found[name] = place
    for before in dict.fromkeys((prefix, "/")):
        for place in own:
            relative = place.removeprefix(before) if place.startswith(before) else ""
            if _is_of_a_source(relative):
                found.setdefault(relative, place)
    for name, place in found.items():
        _check_kind(bag, name, place)
    return TopicNames(namespace, found)


def _check_given(bag: Bag, given: Mapping[str, str], known: Sequence[str]) -> None:
    for name in given:
        if name and name not in known:
            raise RecordingError(f"{bag.path}: a topic is given for {name!r}; {did_you_mean(name, known)}")
    space = given.get("", "").strip("/")
    if space and not any(place.startswith(f"/{space}/") for place in bag.topics):
        raise RecordingError(f"{bag.path}: has no topic in namespace {space!r}, as given (it has {_listing(bag)})")


def _find_namespace(bag: Bag, states: str) -> str:
    """The robot's, by where most topics are; `states` is the name of its joint states where that was given."""
    ends = [name for name in bag.topics if name.endswith(f"/{STATES}")]
    if not ends and states:
        return ""
    if not ends:
        raise RecordingError(
            f"{bag.path}: no topic ends in {STATES} (it has {_listing(bag)}), and without the arm's state there are no "
            f"frames; name the topic with --topic {STATES}=NAME if it is another one"
        )
    spaces = [_space(name) for name in ends]
    counts = [sum(name.startswith(f"/{space}/" if space else "/") for name in bag.topics) for space in spaces]
    if "" in spaces and len(spaces) > 1:
        # At the root all names fit: it counts what belongs to none of the others.
        others = [space for space in spaces if space]
        counts[spaces.index("")] = sum(
            not any(name.startswith(f"/{space}/") for space in others) for name in bag.topics
        )
    best = max(counts)
    fitting = [space for space, count in zip(spaces, counts, strict=True) if count == best]
    if len(fitting) == 1:
        return fitting[0]
    if states in ends and _space(states) in fitting:
        return _space(states)
    raise RecordingError(f"{bag.path}: several robots, in the namespaces {fitting}; name one with --namespace")


def _space(states: str) -> str:
    return states.removesuffix(STATES).strip("/")


def _is_of_another_robot(bag: Bag, place: str, prefix: str) -> bool:
    """Whether a topic is below another namespace that has joint states: what ends alike there is that robot's."""
    spaces = [f"/{_space(name)}/" for name in bag.topics if name.endswith(f"/{STATES}") and _space(name)]
    return not (prefix != "/" and place.startswith(prefix)) and any(
        place.startswith(space) for space in spaces if space != prefix and not prefix.startswith(space)
    )


def _is_of_a_source(name: str) -> bool:
    parts = name.split("/")
    is_policy = len(parts) == 3 and parts[0] == "policies"
    return (is_policy or (len(parts) == 2 and parts[0] == "teleop")) and parts[-1] in OF_A_SOURCE


def _find(bag: Bag, name: str, prefix: str, own: Sequence[str]) -> str | None:
    if name.startswith("/"):
        return name if name in bag.topics else None
    for place in (f"{prefix}{name}", f"/{name}"):
        if place in bag.topics:
            return place
    ends = [place for place in own if place.endswith(f"/{name}") and bag.topics[place].kind in _kinds(name)]
    return ends[0] if len(ends) == 1 else None


def _kinds(name: str) -> tuple[str, ...]:
    last = name.rpartition("/")[2]
    if name in KINDS:
        return (KINDS[name],)
    if name.startswith(("policies/", "teleop/")):
        return (OF_A_SOURCE[last],)
    return (CAMERA_INFO,) if last == "camera_info" else (IMAGE, COMPRESSED_IMAGE)


def _check_kind(bag: Bag, name: str, place: str) -> None:
    kind = bag.topics[place].kind
    if kind not in _kinds(name):
        raise RecordingError(f"{bag.path}: {place} is of type {kind}, needs {' or '.join(_kinds(name))}")


def _listing(bag: Bag) -> str:
    names = sorted(bag.topics)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "no topics"
