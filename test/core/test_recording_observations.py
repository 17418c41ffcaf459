"""A recording gives the observation that its contract's rules say, and refuses what it doesn't hold."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")

import bags
from bags import EpisodeBag, Message

from vla_ros.config import config_names
from vla_ros.contract import load_contract
from vla_ros.errors import ContractError, RecordingError, SensorError
from vla_ros.observation.observed import observed_from_json, observed_to_json
from vla_ros.recording.arm import RecordedArm
from vla_ros.recording.observations import RecordedObservations
from vla_ros.recording.reading import read_episode
from vla_ros.recording.recorded import RecordedEpisode
from vla_ros.recording.synchronise import make_frames
from vla_ros.robots.description import load_description

S = bags.S
BAG = EpisodeBag(duration_s=1.2)
TOOL = load_contract("tool_delta_visual")
PAST = dataclasses.replace(
    TOOL, observation=dataclasses.replace(TOOL.observation, history_steps=3, history_spacing_s=0.2)
)


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> RecordedEpisode:
    return read_episode(BAG.write(tmp_path_factory.mktemp("observations") / "bag"))


@pytest.mark.parametrize("name", config_names("contracts"))
def test_observations_at_the_frames_stamps_are_what_the_frames_say(episode, name) -> None:
    contract = load_contract(name)
    _, frames = make_frames(episode, contract)
    stamps = np.unique(frames.columns["stamp_ns"][:, 0])
    made = list(RecordedObservations(episode, contract).at(stamps.tolist()))
    assert [observation.stamp_ns for observation in made] == stamps.tolist()
    rows = dict(zip(frames.columns["stamp_ns"][:, 0].tolist(), range(len(frames)), strict=True))
    for observation in made:
        row = rows[observation.stamp_ns]
        if len(observation.state):
            np.testing.assert_array_equal(
                observation.state.astype(np.float32), frames.columns["observation.state"][row]
            )
        np.testing.assert_allclose(observation.T_base_tcp[:3, 3], frames.columns["tcp_pose"][row, :3], atol=0)
        assert observation.instruction == BAG.task
        for image, spec in contract.observation.images.items():
            height, width = observation.images[image].image.shape[:2]
            assert (height, width) == (spec.height or 6, spec.width or 8)


def test_images_and_history_are_those_whose_stamps_the_rules_choose(episode) -> None:
    base, wrist = BAG.image_stamps("base"), BAG.image_stamps("wrist")
    (observation,) = RecordedObservations(episode, PAST).at([base[10]])
    # 20 Hz: 0.2 s are four images; the wrist's exposures come 7 ms after the base's.
    for each, index in zip((*observation.history, observation), (2, 6, 10), strict=True):
        assert each.stamp_ns == base[index]
        np.testing.assert_array_equal(each.images["base"].image, BAG.pixels("base", index))
        np.testing.assert_array_equal(each.images["wrist"].image, BAG.pixels("wrist", index - 1))
        assert each.images["wrist"].stamp_ns == wrist[index - 1]
        T = BAG.model.forward_kinematics(BAG.q(base[index]))
        # States are 10 ms apart and 0.07 rad/s fast: their chords leave the sine by a micrometre.
        np.testing.assert_allclose(each.T_base_tcp, T, atol=1e-5)
    (first,) = RecordedObservations(episode, PAST).at([base[3]])
    # What lies before the first complete one is stood for by it.
    assert [each.stamp_ns for each in first.history] == [base[0], base[0]]


def test_camera_on_the_hand_is_where_the_arm_carried_it(episode) -> None:
    stamp = BAG.image_stamps("base")[5]
    (observation,) = RecordedObservations(episode, TOOL).at([stamp])
    frame = observation.images["wrist"]
    mount = BAG.rig.cameras["wrist"].mount
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", mount.rpy_rad).as_matrix()
    T[:3, 3] = mount.position_m
    expected = BAG.model.link_pose(BAG.q(frame.stamp_ns), mount.parent) @ T
    np.testing.assert_allclose(frame.T_base_cam, expected, atol=1e-5)


def test_real_arms_kinematics_are_those_of_its_drivers_description_in_the_bag(episode) -> None:
    longer = load_description(episode.robot).replace('xyz="0 0 0.1034"', 'xyz="0 0 0.1534"')
    q = BAG.q(BAG.image_stamps("base")[5])
    gaps_m = []
    for hardware in ("sim", "real"):
        info = dataclasses.replace(episode.info, hardware=hardware)
        arm = RecordedArm(dataclasses.replace(episode, info=info, description=longer), BAG.model)
        gaps_m.append(float(np.linalg.norm((arm.tcp(q) - BAG.model.forward_kinematics(q))[:3, 3])))
    assert gaps_m == pytest.approx([0.0, 0.05])


def test_what_was_observed_is_made_again_after_json(episode) -> None:
    observations = RecordedObservations(episode, PAST)
    stamps = BAG.image_stamps("base")[5:12]
    shown = list(observations.at(stamps))
    told = [observed_from_json(json.loads(json.dumps(observed_to_json(each.made_of)))) for each in shown]
    for one, other in zip(shown, observations.of(told), strict=True):
        assert one.made_of == other.made_of
        assert one.state.tobytes() == other.state.tobytes()
        for name in one.images:
            np.testing.assert_array_equal(one.images[name].image, other.images[name].image)


def observed(episode: RecordedEpisode, **changes: Any) -> Any:
    (observation,) = RecordedObservations(episode, TOOL).at([BAG.image_stamps("base")[-1]])
    return dataclasses.replace(observation.made_of, **changes)


def test_observation_of_what_is_not_in_the_bag_is_refused(episode) -> None:
    observations = RecordedObservations(episode, TOOL)
    last = BAG.image_stamps("base")[-1]
    state = BAG.state_stamps()[-1]
    for wrong, what in (
        ({"images": {"base": last + 1, "wrist": None}}, "image 'base' of"),
        ({"images": {"base": last}}, "another contract"),
        ({"states": ((state + 1, 0.5),)}, "joint state of"),
        ({"states": ((state, 0.123),)}, "opening 0.123 of gripper/state"),
        ({"commanded_opening": 0.456}, "opening 0.456 of gripper/command"),
    ):
        with pytest.raises(RecordingError, match=what):
            list(observations.of([observed(episode, **wrong)]))
    with pytest.raises(RecordingError, match="no image of 'base' is stamped"):
        observations.at([last + 1])
    with pytest.raises(RecordingError, match="isn't understood"):
        observed_from_json({"stamp_ns": 1, "images": []})


def test_missing_companion_is_refused_as_a_policy_refuses_it(tmp_path) -> None:
    def mend(messages: list[Message]) -> list[Message]:
        return [m for m in messages if not (m.topic.endswith("wrist/image") and m.received_ns > bags.START_NS + S // 2)]

    episode = read_episode(dataclasses.replace(BAG, mend=mend).write(tmp_path / "bag"))
    with pytest.raises(SensorError, match="no image from camera wrist"):
        RecordedObservations(episode, load_contract("libero")).at([BAG.image_stamps("base")[-1]])
    (black,) = RecordedObservations(episode, TOOL).at([BAG.image_stamps("base")[-1]])
    assert not black.images["wrist"].image.any()
    assert black.made_of.images["wrist"] is None


def test_contract_that_the_rig_does_not_fit_is_refused(episode) -> None:
    image = dataclasses.replace(TOOL.observation.images["base"], camera="overhead")
    observation = dataclasses.replace(TOOL.observation, images={"base": image})
    with pytest.raises(ContractError, match="overhead"):
        RecordedObservations(episode, dataclasses.replace(TOOL, observation=observation))
