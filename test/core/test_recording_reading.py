"""Bags are read as they were written, whoever wrote them; what is wrong with one is told, and no dataset made of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

import bags
import cv2
from bags import EpisodeBag, Message, joint_state, make, string
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vla_ros.contract import load_contract, load_rig
from vla_ros.errors import ConfigError, ContractError, DatasetError, RecordingError
from vla_ros.recording.reading import read_episode
from vla_ros.recording.synchronise import FrameOptions, make_episodes, make_frames
from vla_ros.robots.config import load_robot

S = bags.S
SHORT = EpisodeBag(duration_s=0.6)


def mended(change: Any) -> EpisodeBag:
    return dataclasses.replace(SHORT, mend=change)


def without(*ends: str) -> EpisodeBag:
    return mended(lambda messages: [each for each in messages if not each.topic.endswith(ends)])


def changed(end: str, change: Any) -> EpisodeBag:
    """Each message of a topic as `change(index, message)` makes it; None takes it out."""

    def mend(messages: list[Message]) -> list[Message]:
        made, count = [], 0
        for each in messages:
            if each.topic.endswith(end):
                new = change(count, each)
                count += 1
                if new is not None:
                    made.append(new)
            else:
                made.append(each)
        return made

    return mended(mend)


def kinds(episode: Any) -> set[str]:
    return {finding.kind for finding in episode.findings}


def check_read(episode: Any, bag: EpisodeBag) -> None:
    stamps = bag.state_stamps()
    assert episode.joint_positions.stamps_ns.tolist() == stamps
    np.testing.assert_array_equal(episode.joint_positions.values, [bag.q(stamp) for stamp in stamps])
    np.testing.assert_array_equal(episode.joint_commands.values, [bag.q_wanted(stamp) for stamp in stamps])
    poses = [bag.model.forward_kinematics(bag.q_wanted(stamp)) for stamp in stamps]
    np.testing.assert_allclose(episode.tool_targets.values, poses, atol=1e-12)  # Through a quaternion.
    np.testing.assert_array_equal(episode.tool_targets.openings, [bag.opening_wanted(stamp) for stamp in stamps])
    for name, camera in episode.cameras.items():
        assert camera.stamps_ns.tolist() == bag.image_stamps(name)
        for index, image in camera.read():
            np.testing.assert_array_equal(image, bag.pixels(name, index))
    assert [task.task for task in episode.tasks] == [bag.task]
    assert {chunk.chunk.source for chunk in episode.chunks} == {bag.source}
    assert len(episode.chunks) == 5


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize("compression", ["", "message", "file", "storage"])
def test_bags_of_every_storage_version_and_compression_are_read(tmp_path, storage, version, compression) -> None:
    if compression == "storage" and storage == "sqlite3":
        pytest.skip("sqlite3 has no compression of its own")
    folder = SHORT.write(tmp_path / "bag", storage=storage, version=version, compression=compression)
    episode = read_episode(folder)
    check_read(episode, SHORT)
    assert not episode.findings


def test_old_metadata_without_distribution_and_file_list_is_read(tmp_path) -> None:
    """As Humble writes it: version 5."""
    import yaml

    folder = SHORT.write(tmp_path / "bag", storage="sqlite3")
    data = yaml.safe_load((folder / "metadata.yaml").read_text())
    information = data["rosbag2_bagfile_information"]
    information["version"] = 5
    for key in ("ros_distro", "custom_data"):
        information.pop(key, None)
    for topic in information["topics_with_message_count"]:
        topic["topic_metadata"].pop("type_description_hash", None)
    (folder / "metadata.yaml").write_text(yaml.safe_dump(data))
    check_read(read_episode(folder), SHORT)


def test_split_bag_is_read_as_one(tmp_path) -> None:
    import yaml

    messages = sorted(SHORT.messages(), key=lambda each: each.received_ns)
    half = len(messages) // 2
    folder = bags.write_bag(tmp_path / "bag", messages[:half])
    second = bags.write_bag(tmp_path / "second", messages[half:])
    parts = [yaml.safe_load((each / "metadata.yaml").read_text()) for each in (folder, second)]
    one, two = (part["rosbag2_bagfile_information"] for part in parts)
    shutil.copy(second / "second.mcap", folder / "bag_1.mcap")
    one["relative_file_paths"].append("bag_1.mcap")
    one["message_count"] += two["message_count"]
    counts = {each["topic_metadata"]["name"]: each for each in one["topics_with_message_count"]}
    for each in two["topics_with_message_count"]:
        name = each["topic_metadata"]["name"]
        if name in counts:
            counts[name]["message_count"] += each["message_count"]
        else:
            one["topics_with_message_count"].append(each)
    (folder / "metadata.yaml").write_text(yaml.safe_dump(parts[0]))
    check_read(read_episode(folder), SHORT)


def test_bag_of_ros2_bag_record_is_read_once_it_is_said_what_it_is_of(tmp_path) -> None:
    bag = without("episode/event")
    folder = bags.write_bag(tmp_path / "bag", bag.mend(bag.messages()))
    with pytest.raises(ConfigError, match="doesn't say of which rig"):
        read_episode(folder)
    episode = read_episode(folder, bags.tiny_rig(), task="reach")
    check_read(episode, SHORT)
    assert (episode.info.task, episode.info.robot) == ("reach", "panda")


def test_words_of_an_episode_survive_in_its_metadata_and_in_its_first_event(tmp_path) -> None:
    folder = bags.write_bag(tmp_path / "events", SHORT.messages())
    assert read_episode(folder).info == SHORT.info
    bag = without("episode/event")
    custom = {"vla_ros.episode": SHORT.info.to_json()}
    assert read_episode(bags.write_bag(tmp_path / "custom", bag.mend(bag.messages()), custom=custom)).info == SHORT.info


def test_topics_are_found_under_any_namespace(tmp_path) -> None:
    bag = dataclasses.replace(SHORT, namespace="cell/left")
    episode = read_episode(bag.write(tmp_path / "bag"))
    check_read(episode, bag)
    assert episode.topics["joint_states"] == "/cell/left/joint_states"


def test_two_robots_in_one_bag_are_told_apart_by_name_only(tmp_path) -> None:
    left, right = (dataclasses.replace(SHORT, namespace=name) for name in ("left", "right"))
    folder = bags.write_bag(tmp_path / "bag", left.messages() + right.messages())
    with pytest.raises(RecordingError, match=r"\['left', 'right'\]"):
        read_episode(folder)
    assert read_episode(folder, topics={"": "right"}).topics["target"] == "/right/target"
    given = read_episode(folder, topics={"joint_states": "/left/joint_states"})
    assert given.topics["target"] == "/left/target"


@pytest.mark.parametrize("own", ["", "left"])
def test_topic_of_another_robot_never_stands_for_one_that_is_missing(tmp_path, own) -> None:
    """The right arm alone has targets and a policy: they aren't the other arm's."""
    only = ("/target", "/action_chunk")
    left = [m for m in dataclasses.replace(SHORT, namespace=own).messages() if not m.topic.endswith(only)]
    right = dataclasses.replace(SHORT, namespace="right", robot=load_robot("fr3"))
    right_too = [m for m in right.messages() if m.topic.endswith((*only, "joint_states"))]
    episode = read_episode(bags.write_bag(tmp_path / "bag", left + right_too))
    assert episode.topics["joint_states"] == f"{own and '/'}{own}/joint_states"
    assert len(episode.tool_targets) == 0
    assert episode.chunks == ()
    assert "target" in {finding.topic for finding in episode.findings if finding.kind == "missing"}


@pytest.mark.parametrize(("given", "words"), [({"tsk": "/task"}, "did you mean 'task'"), ({"": "left"}, "'left'")])
def test_name_or_namespace_that_means_nothing_is_told(tmp_path, given, words) -> None:
    with pytest.raises(RecordingError, match=words):
        read_episode(SHORT.write(tmp_path / "bag"), topics=given)


def test_clock_set_back_by_less_than_a_second_is_told(tmp_path) -> None:
    """All stamps lie 0.3 s further back from the middle on: two states for each of those times."""

    def set_back(found: list[Message]) -> list[Message]:
        made = []
        for m in found:
            stamp = m.received_ns - 2_000_000
            if m.topic == "/joint_states" and stamp > bags.START_NS + S // 2:
                m = dataclasses.replace(
                    m, message=joint_state(stamp - 3 * S // 10, SHORT.robot.joint_names, SHORT.q(stamp))
                )
            made.append(m)
        return made

    with pytest.raises(RecordingError, match=r"the clock was set: stamps lie 0\.30 s further back"):
        read_episode(mended(set_back).write(tmp_path / "bag"))


def test_topic_that_only_ends_alike_and_is_of_another_type_is_not_meant(tmp_path) -> None:
    other = [Message("/navigation/target", m.received_ns, string("x")) for m in SHORT.messages()[:3]]
    rest = [m for m in SHORT.messages() if m.topic != "/target"]
    assert "target" not in read_episode(bags.write_bag(tmp_path / "bag", rest + other)).topics


def test_policy_at_the_root_is_found_though_the_driver_has_a_namespace(tmp_path) -> None:
    moved = {"/joint_states": "/ur/joint_states"}
    bag = mended(lambda found: [dataclasses.replace(m, topic=moved.get(m.topic, m.topic)) for m in found])
    check_read(read_episode(bag.write(tmp_path / "bag")), SHORT)


def test_driver_topic_of_another_name_can_be_given(tmp_path) -> None:
    bag = mended(lambda found: [dataclasses.replace(m, topic=m.topic.replace("joint_states", "raw")) for m in found])
    folder = bag.write(tmp_path / "bag")
    with pytest.raises(RecordingError, match="no topic ends in joint_states"):
        read_episode(folder)
    check_read(read_episode(folder, topics={"joint_states": "/raw"}), SHORT)


@pytest.mark.parametrize(("encoding", "channels"), [("rgb8", 3), ("bgr8", 3), ("rgba8", 4), ("bgra8", 4), ("mono8", 1)])
def test_raw_encodings_come_out_as_rgb(tmp_path, encoding, channels) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (6, 8, channels), dtype=np.uint8)

    def change(index: int, each: Message) -> Message:
        stamp_ns = SHORT.image_stamps("base")[index]
        return dataclasses.replace(each, message=bags.image(stamp_ns, pixels, encoding, padding=5))

    episode = read_episode(changed("base/image", change).write(tmp_path / "bag"))
    expected = {1: lambda p: cv2.cvtColor(p, cv2.COLOR_GRAY2RGB), 3: lambda p: p, 4: lambda p: p[..., :3]}[channels](
        pixels
    )
    expected = cv2.cvtColor(np.ascontiguousarray(expected), cv2.COLOR_BGR2RGB) if "bgr" in encoding else expected
    ((_, image),) = episode.cameras["base"].read([2])
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("form", "is_exact"), [("png", True), ("jpeg", False)])
def test_compressed_images_are_read_under_the_topic_that_drivers_give_them(tmp_path, form, is_exact) -> None:
    # Flat colours, which JPEG keeps: red.
    pixels = np.full((16, 16, 3), (200, 30, 60), np.uint8)

    def change(index: int, each: Message) -> Message:
        stamp_ns = SHORT.image_stamps("base")[index]
        data = cv2.imencode(f".{form}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].reshape(-1)
        header = bags.header(stamp_ns, "camera")
        message = make("sensor_msgs/msg/CompressedImage", header=header, format=form, data=data)
        return Message("/camera/base/image/compressed", each.received_ns, message)

    episode = read_episode(changed("base/image", change).write(tmp_path / "bag"))
    ((_, image),) = episode.cameras["base"].read([0])
    np.testing.assert_allclose(image.astype(int), pixels, atol=0 if is_exact else 3)
    assert episode.cameras["base"].encoding == form


def test_images_out_of_order_are_read_in_the_order_of_their_stamps(tmp_path) -> None:
    stamps = SHORT.image_stamps("base")

    def swap(index: int, each: Message) -> Message:
        late = {3: 4, 4: 3}.get(index, index)
        return dataclasses.replace(each, received_ns=stamps[late] + 5_000_000)

    episode = read_episode(changed("base/image", swap).write(tmp_path / "bag"))
    assert "order" in kinds(episode)
    check_read(episode, SHORT)
    both = list(episode.read_images({"base": [3, 4, 9], "wrist": [4]}))
    assert sorted((camera, index) for camera, index, _ in both) == [("base", 3), ("base", 4), ("base", 9), ("wrist", 4)]
    for camera, index, image in both:
        np.testing.assert_array_equal(image, SHORT.pixels(camera, index))


def test_own_definitions_in_the_bag_come_before_known_ones(tmp_path) -> None:
    """A Float64 with a field more, as another distribution might have."""
    types = get_typestore(Stores.EMPTY)
    types.register({**bags.TYPES.fielddefs, **get_types_from_msg("float64 data\nfloat64 more", "std_msgs/msg/Float64")})

    def change(_: int, each: Message) -> Message:
        message = types.types["std_msgs/msg/Float64"](data=each.message.data, more=9.0)
        return dataclasses.replace(each, message=message)

    episode = read_episode(changed("gripper/command", change).write(tmp_path / "bag", types=types))
    assert episode.gripper_commands.values.tolist() == [1.0, 0.0]


# What is wrong with a bag.


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_cut_off_bag_is_told_with_its_mend(tmp_path, storage) -> None:
    folder = SHORT.write(tmp_path / "bag", storage=storage)
    path = next(entry for entry in folder.iterdir() if entry.suffix in (".mcap", ".db3"))
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for size in (0, 1, 100, *rng.integers(200, len(whole) - 1, 8).tolist()):
        path.write_bytes(whole[:size])
        with pytest.raises(RecordingError, match="repair"):
            read_episode(folder)


def test_bytes_that_were_changed_are_told_or_leave_readable_values(tmp_path) -> None:
    folder = SHORT.write(tmp_path / "bag", compression="storage")
    path = next(folder.glob("*.mcap"))
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(2)
    told = 0
    for _ in range(10):
        damaged = bytearray(whole)
        place = int(rng.integers(100, len(whole) // 2))
        damaged[place : place + 8] = rng.bytes(8)
        path.write_bytes(damaged)
        try:
            read_episode(folder)
        except RecordingError:
            told += 1
    assert told


def test_missing_files_are_told(tmp_path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        read_episode(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordingError, match="isn't a rosbag2 bag"):
        read_episode(tmp_path / "empty")
    folder = SHORT.write(tmp_path / "open")
    (folder / "metadata.yaml").unlink()
    with pytest.raises(RecordingError, match=r"wasn't closed.*repair"):
        read_episode(folder)


def test_metadata_that_promises_more_than_there_is_is_told(tmp_path) -> None:
    folder = SHORT.write(tmp_path / "bag", storage="sqlite3")
    text = (folder / "metadata.yaml").read_text()
    assert "message_count: 61" in text
    (folder / "metadata.yaml").write_text(text.replace("message_count: 61", "message_count: 62"))
    with pytest.raises(RecordingError, match="61 messages, its metadata says 62"):
        read_episode(folder)


def test_type_that_nobody_defines_is_told_and_stops_nothing_else(tmp_path) -> None:
    types = get_typestore(Stores.EMPTY)
    types.register({**bags.TYPES.fielddefs, **get_types_from_msg("int32 a", "acme_msgs/msg/Odd")})
    odd = Message("/odd", bags.START_NS, types.types["acme_msgs/msg/Odd"](a=1))
    folder = mended(lambda found: [*found, odd]).write(tmp_path / "bag", storage="sqlite3", types=types)
    import sqlite3

    # Humble's sqlite3 bags bring no definitions.
    with sqlite3.connect(next(folder.glob("*.db3"))) as database:
        database.execute("DELETE FROM message_definitions")
    episode = read_episode(folder)
    check_read(episode, SHORT)
    (finding,) = episode.findings
    assert (finding.kind, finding.topic) == ("type", "/odd")
    assert "acme_msgs/msg/Odd" in finding.text


def test_topic_of_another_type_is_told(tmp_path) -> None:
    bag = changed("joint_states", lambda _, each: dataclasses.replace(each, message=string("not joints")))
    with pytest.raises(RecordingError, match=r"/joint_states is of type std_msgs/msg/String, needs sensor_msgs"):
        read_episode(bag.write(tmp_path / "bag"))


def test_missing_topics_are_told(tmp_path) -> None:
    episode = read_episode(without("wrist/image", "safety/verdict", "/target").write(tmp_path / "some"))
    missing = {finding.topic for finding in episode.findings if finding.kind == "missing"}
    assert missing == {"camera/wrist/image", "safety/verdict", "target"}
    with pytest.raises(DatasetError, match="camera wrist has no image"):
        make_frames(episode, load_contract("libero"))
    bare = read_episode(without("base/image", "/target", "joint_command").write(tmp_path / "bare"))
    with pytest.raises(DatasetError, match="camera base, which isn't in the bag"):
        make_frames(bare, load_contract("libero"))
    blind = read_episode(without("/target", "joint_command").write(tmp_path / "blind"))
    with pytest.raises(DatasetError, match="neither targets nor joint_command"):
        make_frames(blind, load_contract("libero"))


def test_joints_of_another_arm_are_told(tmp_path) -> None:
    ur = load_robot("ur5e").joint_names

    def rename(index: int, each: Message) -> Message:
        return dataclasses.replace(each, message=joint_state(SHORT.state_stamps()[index], ur, np.zeros(6)))

    with pytest.raises(RecordingError, match=r"needs each of \['panda_joint1'.*right arm"):
        read_episode(changed("joint_states", rename).write(tmp_path / "bag"))


def test_joint_named_twice_is_told(tmp_path) -> None:
    names = [*SHORT.robot.joint_names, "panda_joint1"]

    def twice(index: int, each: Message) -> Message:
        stamp_ns = SHORT.state_stamps()[index]
        return dataclasses.replace(each, message=joint_state(stamp_ns, names, [*SHORT.q(stamp_ns), 0.0]))

    with pytest.raises(RecordingError, match=r"\['panda_joint1'\] exactly once"):
        read_episode(changed("joint_states", twice).write(tmp_path / "bag"))


def test_messages_of_other_joints_between_are_left_out_and_told(tmp_path) -> None:
    def fingers(found: list[Message]) -> list[Message]:
        more = [
            Message("/joint_states", each.received_ns + 1, joint_state(each.received_ns, ["finger"], [0.01]))
            for each in found
            if each.topic == "/joint_states"
        ]
        return found + more

    episode = read_episode(mended(fingers).write(tmp_path / "bag"))
    check_read(episode, SHORT)
    (finding,) = episode.findings
    assert (finding.kind, finding.count) == ("value", 61)


def test_joints_in_another_order_are_sorted_by_name(tmp_path) -> None:
    names = list(reversed(SHORT.robot.joint_names))

    def turn(index: int, each: Message) -> Message:
        stamp_ns = SHORT.state_stamps()[index]
        return dataclasses.replace(each, message=joint_state(stamp_ns, names, SHORT.q(stamp_ns)[::-1]))

    check_read(read_episode(changed("joint_states", turn).write(tmp_path / "bag")), SHORT)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_left_out_and_told(tmp_path, bad) -> None:
    def spoil(index: int, each: Message) -> Message:
        stamp_ns = SHORT.state_stamps()[index]
        q = SHORT.q(stamp_ns)
        q[2] = bad if index == 30 else q[2]
        return dataclasses.replace(each, message=joint_state(stamp_ns, SHORT.robot.joint_names, q))

    episode = read_episode(changed("joint_states", spoil).write(tmp_path / "bag"))
    assert len(episode.joint_positions) == 60
    (finding,) = episode.findings
    assert (finding.kind, finding.count, finding.stamp_ns) == ("value", 1, SHORT.state_stamps()[30])


def restamped(end: str, leap: Any) -> EpisodeBag:
    """Stamps moved by `leap(index)` ns, receptions as they were."""

    def change(index: int, each: Message) -> Message:
        stamp = each.message.header.stamp
        stamp_ns = stamp.sec * S + stamp.nanosec + leap(index)
        header = bags.header(stamp_ns, each.message.header.frame_id)
        return dataclasses.replace(each, message=dataclasses.replace(each.message, header=header))

    return changed(end, change)


@pytest.mark.parametrize("end", ["joint_states", "base/image", "/target"])
@pytest.mark.parametrize(
    ("leap", "what"),
    [
        (lambda index: -5 * S if index > 8 else 0, "the clock was set|lie 5"),
        (lambda index: 5 * S if index > 8 else 0, "the clock was set|lie 5"),
        (lambda index: 3 * S if index == 5 else 0, "the clock was set"),
        (lambda _: -bags.START_NS, "before their reception"),
        (lambda _: 20 * S, "after their reception"),
    ],
)
def test_clock_that_jumps_or_is_another_is_told(tmp_path, end, leap, what) -> None:
    with pytest.raises(RecordingError, match=what) as error:
        read_episode(restamped(end, leap).write(tmp_path / "bag"))
    assert end.strip("/") in str(error.value)


def test_late_messages_and_repeated_stamps_are_told_and_harmless(tmp_path) -> None:
    late = changed("joint_states", lambda i, m: dataclasses.replace(m, received_ns=m.received_ns + (i == 20) * 2 * S))
    episode = read_episode(late.write(tmp_path / "late"))
    assert {"late", "order"} <= kinds(episode)
    assert len(episode.joint_positions) == 61
    twice = mended(lambda found: [*found, *(m for m in found if m.topic.endswith("base/image"))])
    episode = read_episode(twice.write(tmp_path / "twice"))
    assert "duplicate" in kinds(episode)
    check_read(episode, SHORT)


def test_another_rig_robot_or_contract_than_recorded_is_told(tmp_path) -> None:
    recorded = load_contract("tool_delta_visual")
    folder = dataclasses.replace(SHORT, contracts={"scripted": recorded}).write(tmp_path / "bag")
    with pytest.raises(RecordingError, match=r"rig panda_table, not in ur5e_table.*robot: ur5e"):
        read_episode(folder, load_rig("ur5e_table"))
    with pytest.raises(RecordingError, match="is of robot panda, not of ur5e"):
        read_episode(folder, robot=load_robot("ur5e"))
    episode = read_episode(folder)
    _, frames = make_frames(episode, load_contract("libero"))
    (finding,) = [each for each in frames.attributes["findings"] if each["kind"] == "contract"]
    assert "tool_delta_visual" in finding["text"]
    assert "action.period_s: 0.1 != 0.05" in finding["text"]
    _, frames = make_frames(episode, recorded)
    assert not [each for each in frames.attributes["findings"] if each["kind"] == "contract"]
    images = {"over": dataclasses.replace(recorded.observation.images["base"], camera="overhead")}
    other = dataclasses.replace(
        recorded, observation=dataclasses.replace(recorded.observation, images=images, reference="over")
    )
    with pytest.raises(ContractError, match="camera 'overhead'"):
        make_episodes(episode, other)


def test_image_of_another_size_or_encoding_is_told_when_it_is_read(tmp_path) -> None:
    def bigger(index: int, each: Message) -> Message:
        if index == 4:
            pixels = np.zeros((12, 16, 3), np.uint8)
            each = dataclasses.replace(each, message=bags.image(SHORT.image_stamps("base")[4], pixels))
        return each

    episode = read_episode(changed("base/image", bigger).write(tmp_path / "bigger"))
    _, frames = make_frames(episode, load_contract("libero"), FrameOptions(tolerance_s=0.001))
    with pytest.raises(RecordingError, match="is 16x12, the first was 8x6"):
        list(frames.read_images())
    odd = changed(
        "base/image",
        lambda index, each: dataclasses.replace(
            each, message=dataclasses.replace(each.message, encoding="bayer_rggb8")
        ),
    )
    with pytest.raises(RecordingError, match="'bayer_rggb8'"):
        read_episode(odd.write(tmp_path / "odd"))


def test_events_and_verdicts_are_read(tmp_path) -> None:
    text = json.dumps({"event": "source", "source": "teleop", "stamp_ns": bags.START_NS + S // 4})
    more = Message("/episode/event", bags.START_NS + S // 3, string(text))
    bad = Message("/episode/event", bags.START_NS + S // 3, string("no json"))
    episode = read_episode(mended(lambda found: [*found, more, bad]).write(tmp_path / "bag"))
    assert [event.event for event in episode.events] == ["start", "source", "success"]
    assert episode.events[1].stamp_ns == bags.START_NS + S // 4
    assert (bags.START_NS + S // 4, "teleop") in episode.sources
    assert all(verdict.source == "scripted" for verdict in episode.verdicts)
    assert [finding.text for finding in episode.findings] == ["'no json' isn't a JSON object"]
