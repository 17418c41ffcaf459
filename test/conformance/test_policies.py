"""Every policy in config/policies, every kind, and every own network with random weights, held to the same rules."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from vla_ros.config import config_names, plain
from vla_ros.contract import ActionSpec, Contract, load_contract
from vla_ros.errors import ConfigError, ContractError, InstructionError, MissingDependencyError
from vla_ros.geometry.cameras import camera_from_fov, project
from vla_ros.geometry.rotations import rotvec_to_matrix
from vla_ros.geometry.se3 import invert, make_pose
from vla_ros.observation.state_vector import write_state
from vla_ros.policies.base import InferenceContext, Policy
from vla_ros.policies.registry import BUILT_IN, PolicyConfig, load_policy_config, make_policy
from vla_ros.types import ActionChunk, CameraFrame, FloatArray, Observation, RobotState

SECOND = 1_000_000_000
TASKS = ("reach the red block", "pick up the green block", "push the blue block left")
BLOCKS = {(200, 30, 30): (0.42, -0.12, 0.3), (30, 170, 40): (0.50, 0.02, 0.0), (30, 50, 200): (0.42, 0.13, -0.5)}
CORNERS = 0.04 * np.array(list(itertools.product((-0.5, 0.5), (-0.5, 0.5), (0.0, 1.0))))
ROTATION_SIZE = {"rotvec": 3, "rpy": 3, "quat_xyzw": 4, "rot6d": 6, "rot6d_rows": 6}
HOME = make_pose(np.array([0.47, 0.0, 0.38]), np.diag([1.0, -1.0, -1.0]))


def make(config: PolicyConfig) -> tuple[Policy, Contract]:
    try:
        return make_policy(config)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def scene(width: int, height: int, stamp_ns: int) -> CameraFrame:
    """Three blocks on a table, seen from the front as from the usual base camera."""
    camera = camera_from_fov(width, height, 0.75)
    s = np.sqrt(0.5)
    T_base_cam = make_pose(np.array([1.15, 0.0, 0.7]), np.array([[0.0, s, -s], [1.0, 0.0, 0.0], [0.0, -s, -s]]))
    image = np.full((height, width, 3), (150, 130, 110), np.uint8)
    for colour, (x, y, yaw_rad) in BLOCKS.items():
        corners = CORNERS @ rotvec_to_matrix(np.array([0.0, 0.0, yaw_rad])).T + [x, y, 0.0]
        T_cam_base = invert(T_base_cam)
        pixels = project(camera, corners @ T_cam_base[:3, :3].T + T_cam_base[:3, 3])
        cv2.fillConvexPoly(image, cv2.convexHull(np.round(pixels).astype(np.int32)), colour)
    return CameraFrame(stamp_ns, image, camera, T_base_cam)


def observe(contract: Contract, count: int, task: str) -> Observation:
    """The count-th observation, an eighth of a second after the one before; the arm drifts down a little."""
    stamp_ns = SECOND + count * SECOND // 8
    images = {
        name: scene(spec.width or 320, spec.height or 240, stamp_ns)
        for name, spec in contract.observation.images.items()
    }
    T_base_tcp = HOME.copy()
    T_base_tcp[2, 3] -= 0.002 * count
    measured = RobotState(stamp_ns, np.zeros(7), np.zeros(7), 1.0)
    state, layout = write_state(contract.observation, measured, T_base_tcp, None)
    seen = Observation(stamp_ns, images, state, layout, T_base_tcp, 1.0, task)
    return dataclasses.replace(seen, history=(seen,) * (contract.observation.history_steps - 1))


def answers(policy: Policy, contract: Contract, task: str, seed: int, begin: int = 0) -> list[ActionChunk]:
    policy.reset(task, seed)
    return [policy.infer(observe(contract, begin + k, task), InferenceContext(expected_delay_s=0.1)) for k in range(5)]


def action_size(spec: ActionSpec, joints: int) -> int:
    gripper = 0 if spec.gripper == "none" else 1
    return gripper + (3 + ROTATION_SIZE[spec.rotation] if spec.space == "tool" else joints)


def assert_same(a: list[ActionChunk], b: list[ActionChunk]) -> None:
    assert [chunk.is_idle for chunk in a] == [chunk.is_idle for chunk in b]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)


def test_there_are_policies() -> None:
    assert "scripted_visual" in config_names("policies")


def test_every_built_in_kind_is_tested(cases: Mapping[str, str]) -> None:
    untested = BUILT_IN.keys() - cases.values()
    assert not untested, f"add a case to test/conformance/conftest.py for: {', '.join(sorted(untested))}"


@pytest.mark.parametrize("name", config_names("policies"))
def test_a_policy_is_called_what_its_file_is_called(name: str) -> None:
    assert load_policy_config(name).name == name


def test_policy_has_the_protocol_and_carries_its_contract(config: PolicyConfig) -> None:
    policy, contract = make(config)
    assert isinstance(policy, Policy)
    assert policy.contract.interface_hash == contract.interface_hash == load_contract(config.contract).interface_hash


@pytest.mark.parametrize("task", TASKS)
def test_chunks_have_the_contracts_shape_and_are_finite(config: PolicyConfig, task: str) -> None:
    policy, contract = make(config)
    chunks = answers(policy, contract, task, config.seed)
    assert not all(chunk.is_idle for chunk in chunks), f"idle throughout: {chunks[-1].note}"
    lengths = {len(chunk.actions) for chunk in chunks if not chunk.is_idle}
    assert len(lengths) == 1
    for chunk in chunks:
        assert chunk.actions.dtype == np.float64
        if chunk.is_idle:
            assert chunk.actions.size == 0
            assert chunk.note
            continue
        assert chunk.actions.ndim == 2
        assert chunk.actions.shape[1] == action_size(contract.action, joints=chunk.actions.shape[1] - 1)
        assert np.isfinite(chunk.actions).all()


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_and_observations_give_the_same_chunks(config: PolicyConfig, task: str) -> None:
    (one, contract), (other, _) = make(config), make(config)
    assert_same(answers(one, contract, task, 7), answers(other, contract, task, 7))


def test_checkpoint_that_was_copied_elsewhere_answers_the_same(config: PolicyConfig, tmp_path: Path) -> None:
    folder = config.parameters.get("checkpoint")
    if folder is None:
        pytest.skip("has no checkpoint")
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    moved = dataclasses.replace(config, parameters={**config.parameters, "checkpoint": str(copy)})
    (one, contract), (other, _) = make(config), make(moved)
    assert_same(answers(one, contract, TASKS[0], 7), answers(other, contract, TASKS[0], 7))


def test_reset_forgets_everything(config: PolicyConfig) -> None:
    (used, contract), (fresh, _) = make(config), make(config)
    answers(used, contract, TASKS[0], 3)
    assert_same(answers(used, contract, TASKS[1], 7, begin=20), answers(fresh, contract, TASKS[1], 7, begin=20))


def test_tasks_make_a_difference(config: PolicyConfig) -> None:
    policy, contract = make(config)
    first, second = (answers(policy, contract, task, 7)[-1] for task in TASKS[:2])
    assert first.is_idle != second.is_idle or not np.allclose(first.actions, second.actions)


def test_policy_leaves_its_observation_alone(config: PolicyConfig) -> None:
    policy, contract = make(config)
    policy.reset(TASKS[0], 0)
    seen, twin = observe(contract, 0, TASKS[0]), observe(contract, 0, TASKS[0])
    policy.infer(seen, InferenceContext())

    def arrays(observation: Observation) -> list[FloatArray]:
        frames = observation.images.values()
        return [observation.state, observation.T_base_tcp, *(np.asarray(frame.image, float) for frame in frames)]

    for one, other in zip(arrays(seen), arrays(twin), strict=True):
        np.testing.assert_array_equal(one, other)


def test_policy_answers_in_another_thread_than_the_one_that_made_it(config: PolicyConfig) -> None:
    (one, contract), (other, _) = make(config), make(config)
    with ThreadPoolExecutor(max_workers=1) as thread:
        elsewhere = thread.submit(answers, other, contract, TASKS[0], 7).result()
    assert_same(answers(one, contract, TASKS[0], 7), elsewhere)


def test_overlapping_calls_answer_as_if_one_had_come_after_the_other(config: PolicyConfig) -> None:
    (one, contract), (other, _) = make(config), make(config)
    observation, calls = observe(contract, 0, TASKS[0]), 8
    one.reset(TASKS[0], 7)
    in_turn = [one.infer(observation, InferenceContext()).actions for _ in range(calls)]
    # A policy that both ask elsewhere serves who reset it last.
    other.reset(TASKS[0], 7)
    begin = threading.Barrier(calls)

    def call(_: int) -> FloatArray:
        begin.wait()
        return other.infer(observation, InferenceContext()).actions

    with ThreadPoolExecutor(max_workers=calls) as threads:
        at_once = list(threads.map(call, range(calls)))
    # Which call came first isn't known, so the answers are the same up to their order.
    assert sorted(a.tobytes() for a in at_once) == sorted(a.tobytes() for a in in_turn)


@pytest.mark.parametrize("task", ["", "  "])
def test_empty_task_is_refused(config: PolicyConfig, task: str) -> None:
    policy, _ = make(config)
    with pytest.raises(InstructionError):
        policy.reset(task, 0)


@pytest.mark.parametrize(
    "changes",
    [{"space": "joint"}, {"composition": "tcp"}, {"rotation": "rot6d_rows"}, {"gripper": "signed_closing"}],
    ids=lambda changes: next(iter(changes)),
)
def test_contract_that_means_something_else_is_refused(
    config: PolicyConfig, changes: dict[str, str], tmp_path: Path
) -> None:
    make(config)
    contract = load_contract(config.contract)
    if all(getattr(contract.action, key) == value for key, value in changes.items()):
        pytest.skip("that is its contract")
    data = dataclasses.asdict(contract)
    data["action"].update(changes)
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(plain(data)))
    # By the policy, or before it by the contract itself, where the change contradicts the rest of it.
    with pytest.raises((ContractError, ConfigError)):
        make_policy(dataclasses.replace(config, contract=str(path)))
