"""An episode out of a rosbag2 bag: ours, or anybody's who says which robot, rig and task it is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_ros.actions.wire import from_transform
from vla_ros.config import plain
from vla_ros.contract import Contract, Rig, describe
from vla_ros.errors import ConfigError, RecordingError, SensorError
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.cameras import calibrated_camera
from vla_ros.observation.decoding import from_camera_info
from vla_ros.observation.transforms import TransformBuffer, TransformError
from vla_ros.recording.bag import Bag
from vla_ros.recording.clocks import put_in_order
from vla_ros.recording.episode import INFO_FILE, INFO_KEY, EpisodeInfo, read_info
from vla_ros.recording.images import BagImages, ImageIndex, decode
from vla_ros.recording.recorded import Finding, RecordedCamera, RecordedEpisode, RecordedTask, Series, StampArray
from vla_ros.recording.streams import Heard, Streams, table_topic
from vla_ros.recording.topic_names import STATES, TopicNames, find_topics
from vla_ros.recording.topics import OF_A_SOURCE, TRUTH_TOPIC
from vla_ros.recording.truth_messages import read_truth
from vla_ros.robots.config import RobotConfig, build_robot, load_robot
from vla_ros.types import CameraModel, FloatArray, ImageArray


def read_episode(
    folder: Path,
    rig: Rig | None = None,
    robot: RobotConfig | None = None,
    contract: Contract | None = None,
    *,
    task: str = "",
    topics: Mapping[str, str] | None = None,
) -> RecordedEpisode:
    """Reads all of an episode but its images, which are read when they are asked for.

    Args:
        folder: of the bag, or its only file.
        rig: the cell; of a bag that doesn't say, which is one of other origin.
        robot: likewise; the rig's if None.
        contract: under which it was recorded, likewise.
        task: likewise.
        topics: relative name -> name in the bag, where that isn't found by itself; the empty name is the namespace's.

    Raises:
        RecordingError: if it can't be opened or is cut off; a topic that is needed is missing or of another type; its
            clocks can't be trusted; or it says that it is of another rig or robot.
        ConfigError: if nobody says of which rig it is.
    """
    with Bag(folder) as bag:
        info = _read_info(bag, folder)
        info = _told(folder, rig, robot, contract, task) if info is None else _compared(info, folder, rig, robot)
        config = robot or _robot(info)
        images = {camera.topic: name for name, camera in info.rig.cameras.items()}
        compressed = {f"{camera.topic}/compressed": name for name, camera in info.rig.cameras.items()}
        infos = {camera.info_topic: name for name, camera in info.rig.cameras.items()}
        names = find_topics(bag, [*images, *compressed, *infos], topics or {})
        indices = {
            name: ImageIndex(names.names[topic])
            for topic, name in (compressed | images).items()
            if topic in names.names
        }
        heard = _hear(bag, names, indices)
        streams = Streams(bag, config)
        episode = _assemble(bag, info, config, names, heard, streams)
        cameras = _cameras(bag, info.rig, names, indices, heard, streams)
        findings = [*streams.findings, *_missing(info.rig, names, bag)]
    images_of = BagImages(folder, indices)
    return replace(
        episode,
        cameras={name: replace(camera, open_images=_opener(images_of, name)) for name, camera in cameras.items()},
        findings=tuple(findings),
        open_images=images_of.read,
    )


def _read_info(bag: Bag, folder: Path) -> EpisodeInfo | None:
    """From beside the bag, its metadata, or its first event; None where nobody says."""
    problem: ConfigError | None = None
    if folder.is_dir() and (folder / INFO_FILE).is_file():
        try:
            return read_info(folder)
        except ConfigError as error:
            problem = error
    if INFO_KEY in bag.custom:
        return EpisodeInfo.from_json(bag.custom[INFO_KEY], f"{folder}: metadata")
    events = [name for name, topic in bag.topics.items() if name.endswith("/episode/event") and topic.is_known]
    for _, _, data in bag.raw(events) if events else ():
        try:
            values = json.loads(bag.decode(events[0], data).data)
        except ValueError:
            continue
        if isinstance(values, dict) and values.get("event") == "start" and "episode" in values:
            return EpisodeInfo.from_json(json.dumps(values["episode"]), f"{folder}: its start event")
    if problem is not None:
        raise problem
    return None


def _told(
    folder: Path, rig: Rig | None, robot: RobotConfig | None, contract: Contract | None, task: str
) -> EpisodeInfo:
    if rig is None:
        mend = "name the rig that it was recorded in with --rig, and --task"
        raise ConfigError(str(folder), "doesn't say of which rig it is: no episode.json, nor in its metadata", mend)
    contracts = {} if contract is None else {contract.name: contract}
    return EpisodeInfo(
        0, task, rig.robot if robot is None else robot.name, rig, 0, contracts=contracts, outcome="unlabelled"
    )


def _compared(info: EpisodeInfo, folder: Path, rig: Rig | None, robot: RobotConfig | None) -> EpisodeInfo:
    if rig is not None and rig != info.rig:
        lines = set(describe(rig).splitlines()) ^ set(describe(info.rig).splitlines())
        few = "; ".join(sorted(lines, key=lambda line: (line.partition(":")[0].count("."), line))[:6])
        raise RecordingError(f"{folder}: was recorded in rig {info.rig.name}, not in {rig.name} as given: {few}")
    if robot is not None and robot.name != Path(info.robot).stem:
        raise RecordingError(f"{folder}: is of robot {info.robot}, not of {robot.name}")
    return info


def _robot(info: EpisodeInfo) -> RobotConfig:
    if not info.robot_config:
        return load_robot(info.robot)
    config = build_robot(plain(info.robot_config), f"robot {info.robot} of {info.name}")
    if config.description_file.is_file():
        return config
    try:
        return replace(config, description=load_robot(info.robot).description)
    except ConfigError:
        return config


def _hear(bag: Bag, names: TopicNames, indices: Mapping[str, ImageIndex]) -> dict[str, Heard]:
    """Everything but images in one pass, by relative name; images are indexed."""
    images = {index.topic: index for index in indices.values()}
    relative = {place: name for name, place in names.names.items()}
    heard: dict[str, Heard] = {}
    wanted = {place for place in names.names.values() if place in images or bag.topics[place].is_known}
    for count, (topic, received_ns, data) in enumerate(bag.raw(wanted)):
        if topic in images:
            images[topic].add(received_ns, data)
            continue
        each = heard.setdefault(relative[topic], Heard(topic))
        each.received_ns.append(received_ns)
        each.order.append(count)
        each.data.append(data)
    return heard


def _assemble(
    bag: Bag, info: EpisodeInfo, robot: RobotConfig, names: TopicNames, heard: Mapping[str, Heard], streams: Streams
) -> RecordedEpisode:
    if STATES not in heard:
        raise RecordingError(f"{bag.path}: {names.names[STATES]} has no messages: without the arm's state no frames")
    positions, velocities, order = streams.joints(heard[STATES], is_needed=True)
    openings, gripper_order = streams.gripper_states(heard.get("gripper/state"))
    commands, _, _ = streams.joints(heard.get("joint_command"))
    chunks, observed = [], []
    for name, each in heard.items():
        kind = name.rpartition("/")[2]
        if kind not in OF_A_SOURCE or name.count("/") not in (1, 2):
            continue
        source = name.split("/")[-2]
        if kind == "observed":
            observed += [{**values, "policy": source} for _, values in streams.objects(each)]
        else:
            chunks += streams.chunks(each, source, kind == "action_chunk")
    description = streams.texts(heard.get("robot_description"))
    told = streams.texts(heard.get("task"))
    return RecordedEpisode(
        info=info,
        robot=robot,
        description=description[-1][1] if description else "",
        joint_positions=positions,
        joint_velocities=velocities,
        joint_openings=_known_openings(order, openings, gripper_order),
        gripper_openings=openings,
        gripper_commands=streams.gripper_commands(heard.get("gripper/command")),
        tool_targets=streams.tool_targets(heard.get("target")),
        joint_targets=streams.joint_targets(heard.get("joint_target")),
        joint_commands=commands,
        chunks=tuple(sorted(chunks, key=lambda chunk: chunk.received_ns)),
        verdicts=tuple(streams.verdicts(heard.get("safety/verdict"))),
        events=tuple(streams.events(heard.get("episode/event"))),
        tasks=tuple(RecordedTask(received_ns, text.strip()) for received_ns, text in told),
        observed=tuple(observed),
        cameras={},
        truth=read_truth(bag, heard.get(TRUTH_TOPIC), robot),
        topics=names.names,
    )


def _known_openings(order: list[int], openings: Series, gripper_order: list[int]) -> FloatArray:
    """What the gripper was known to have when each joint state came: as nodes see it, by the order of messages."""
    came = np.argsort(gripper_order, kind="stable")
    values = np.append(np.nan, openings.values[came])
    return np.asarray(values[np.searchsorted(np.array(gripper_order, dtype=np.int64)[came], order)])


def _cameras(
    bag: Bag,
    rig: Rig,
    names: TopicNames,
    indices: Mapping[str, ImageIndex],
    heard: Mapping[str, Heard],
    streams: Streams,
) -> dict[str, RecordedCamera]:
    transforms = TransformBuffer()
    static = heard.get("tf_static")
    for data in static.data if static is not None else ():
        for edge in bag.decode(names.names["tf_static"], data).transforms:
            transforms.set_transform(edge.header.frame_id, edge.child_frame_id, from_transform(edge.transform), 0, True)
    cameras = {}
    for name, index in indices.items():
        if not index.stamps_ns:
            streams.findings.append(Finding("missing", index.topic, "no images, though the topic is there"))
            continue
        received = np.array(index.received_ns, dtype=np.int64)
        order, findings = put_in_order(np.array(index.stamps_ns, dtype=np.int64), received, index.topic)
        streams.findings += findings
        index.places = order
        height, width = decode(bag, index.topic, index.first).shape[:2]
        message = bag.decode(index.topic, memoryview(index.first))
        cameras[name] = RecordedCamera(
            name=name,
            topic=index.topic,
            stamps_ns=np.array(index.stamps_ns, dtype=np.int64)[order],
            width=width,
            height=height,
            encoding=str(getattr(message, "encoding", "") or getattr(message, "format", "")),
            camera=_intrinsics(bag, rig, name, heard.get(rig.cameras[name].info_topic), streams),
            T_parent_cam=_mount(rig, name, transforms),
            open_images=lambda wanted: iter(()),
        )
    return cameras


def _intrinsics(bag: Bag, rig: Rig, name: str, heard: Heard | None, streams: Streams) -> CameraModel | None:
    """As a node takes them: CameraInfo's where it is calibrated, else the rig's."""
    camera = rig.cameras[name]
    found = calibrated_camera(camera.width, camera.height, camera.fovy_rad, camera.K, camera.distortion)
    for data in reversed(heard.data) if heard is not None else ():
        message = bag.decode(table_topic(heard), data)
        if message.k[0] > 0.0:
            try:
                return from_camera_info(message)
            except SensorError as error:
                streams.findings.append(Finding("value", camera.info_topic, str(error)))
                return None
    return found


def _mount(rig: Rig, name: str, transforms: TransformBuffer) -> FloatArray:
    mount = rig.cameras[name].mount
    try:
        return transforms.lookup(mount.parent, mount.frame)
    except TransformError:
        return se3.make_pose(np.array(mount.position_m), rotations.rpy_to_matrix(np.array(mount.rpy_rad)))


def _missing(rig: Rig, names: TopicNames, bag: Bag) -> list[Finding]:
    found = []
    for name, camera in rig.cameras.items():
        if camera.topic not in names.names and f"{camera.topic}/compressed" not in names.names:
            found.append(Finding("missing", camera.topic, f"camera {name} of rig {rig.name} isn't in the bag"))
    found += [
        Finding("missing", topic, "isn't in the bag")
        for topic in ("target", "joint_command", "safety/verdict")
        if topic not in names.names and not (topic == "target" and "joint_target" in names.names)
    ]
    found += [
        Finding("type", topic.name, f"{topic.kind} is defined neither in the bag nor by ROS; not read")
        for topic in bag.topics.values()
        if not topic.is_known
    ]
    return found


def _opener(images: BagImages, name: str) -> Callable[[StampArray], Iterator[tuple[int, ImageArray]]]:
    return lambda wanted: ((index, image) for _, index, image in images.read({name: wanted}))
