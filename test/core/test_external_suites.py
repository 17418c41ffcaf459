"""External suites: LIBERO's interface by a stand-in of its environment, conversions by formulas of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_ros.config import build
from vla_ros.contract import Contract, load_contract
from vla_ros.errors import ContractError, MissingDependencyError, UnknownNameError, VlaRosError
from vla_ros.evaluation.suites.drive import drive, native_actions, observe
from vla_ros.evaluation.suites.evaluating import evaluate_external, open_suite
from vla_ros.evaluation.suites.libero import SETTLE_STEPS, LiberoSuite
from vla_ros.evaluation.suites.robosuite_form import read_moment
from vla_ros.policies.base import InferenceContext
from vla_ros.types import ActionChunk, Observation

LIBERO = load_contract("libero")


class Environment:
    """LIBERO's OffScreenRenderEnv as far as its interface goes: the tool goes where actions send it, at once.

    Done when it has come to x = 0.2 m with the gripper closed.
    """

    def __init__(self, task: Any) -> None:
        self.task, self.actions, self.closed = task, [], False
        self.calls: list[str] = []

    def seed(self, seed: int) -> None:
        self.calls.append(f"seed {seed}")

    def reset(self) -> dict[str, Any]:
        self.calls.append("reset")
        self.p, self.R, self.finger = np.zeros(3), Rotation.from_rotvec([math.pi - 0.02, 0.0, 0.0]), 0.04
        return self._observation()

    def set_init_state(self, state: Sequence[float]) -> dict[str, Any]:
        self.calls.append("set_init_state")
        self.p = np.array(state[:3])
        return self._observation()

    def step(self, action: Sequence[float]) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        a = np.array(action)
        assert a.shape == (7,)
        assert np.abs(a).max() <= 1.0
        self.actions.append(a)
        self.p = self.p + 0.05 * a[:3]
        self.R = Rotation.from_rotvec(0.5 * a[3:6]) * self.R
        self.finger = 0.04 if a[6] < 0.0 else 0.0
        return self._observation(), 0.0, bool(self.p[0] >= 0.2 - 1e-9 and self.finger == 0.0), {}

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> dict[str, Any]:
        image = np.zeros((8, 8, 3), np.uint8)
        image[0, 0] = 255  # The upright view's lower left: rows come lowest first.
        return {
            "agentview_image": image,
            "robot0_eye_in_hand_image": image[:, ::-1].copy(),
            "robot0_eef_pos": self.p,
            "robot0_eef_quat": self.R.as_quat(),
            "robot0_gripper_qpos": np.array([self.finger, -self.finger]),
        }


class Benchmark:
    """As `libero.benchmark` gives one."""

    n_tasks = 2

    def get_task(self, task: int) -> Any:
        return SimpleNamespace(language=["go to the line", "do it again"][task])

    def get_task_init_states(self, task: int) -> Any:
        return np.array([[0.0, 0.01 * task, 1.0], [0.05, 0.0, 1.0]])


class Recorded:
    """A policy that answers what was recorded."""

    def __init__(self, rows: Any, contract: Contract = LIBERO) -> None:
        self.rows, self.contract = np.array(rows, dtype=np.float64), contract
        self.seen: list[Observation] = []
        self.told: list[tuple[str, int]] = []

    def reset(self, task: str, seed: int) -> None:
        self.told.append((task, seed))

    def infer(self, observation: Observation, context: InferenceContext) -> ActionChunk:
        self.seen.append(observation)
        return ActionChunk(self.rows)


@pytest.fixture
def suite() -> tuple[LiberoSuite, list[Environment]]:
    made: list[Environment] = []

    def make_env(task: Any) -> Environment:
        made.append(Environment(task))
        return made[-1]

    return LiberoSuite(Benchmark(), make_env), made


def test_recorded_actions_reach_the_environment_as_they_are_and_done_is_success(suite) -> None:
    libero, made = suite
    rng = np.random.default_rng(0)
    rows = rng.uniform(-0.9, 0.9, (8, 7))
    rows[:, 0], rows[:, 6] = 0.6, 1.0
    policy = Recorded(rows)
    outcome = drive(libero, policy, 0, 0, 50)
    # 0.2 m in steps of 0.03 m.
    assert (outcome.is_success, outcome.steps) == (True, 7)
    assert policy.told == [("go to the line", 0)]
    (env,) = made
    assert env.calls == ["seed 0", "reset", "set_init_state"]
    np.testing.assert_allclose(env.actions[SETTLE_STEPS:], rows[:7], atol=1e-9)
    np.testing.assert_array_equal(env.actions[:SETTLE_STEPS], [[0, 0, 0, 0, 0, 0, -1]] * SETTLE_STEPS)


def robosuite_axis_angle(quat: Any) -> Any:
    """robosuite, utils/transform_utils.py, quat2axisangle, written anew: the whole turn's angle of w."""
    w = min(1.0, max(-1.0, quat[3]))
    return np.array(quat[:3]) * 2.0 * math.acos(w) / math.sqrt(1.0 - w * w)


def test_the_observation_is_what_the_checkpoints_have_learnt(suite) -> None:
    """Images turned by half a turn, pose with robosuite's axis-angle, both fingers in metres."""
    libero, _ = suite
    moment = libero.reset(0, 1)
    observation = observe(LIBERO.observation, moment, 5, 1.0, "go")
    image = observation.images["image"].image
    assert image.shape == (224, 224, 3)
    # One white pixel of 8 x 8 in the first row and column is now in the last ones.
    assert image[-10:, -10:].min() > 200
    assert image[:100].max() == 0
    assert observation.images["wrist_image"].image[-10:, :10].min() > 200
    np.testing.assert_allclose(observation.state[:3], [0.05, 0.0, 1.0])
    quat = Rotation.from_rotvec([math.pi - 0.02, 0.0, 0.0]).as_quat()
    np.testing.assert_allclose(observation.state[3:6], robosuite_axis_angle(quat), atol=1e-9)
    np.testing.assert_allclose(observation.state[6:], [0.04, -0.04])


@pytest.mark.parametrize("turn_rad", [-0.5, -0.01, 0.01, 0.5])
def test_axis_angle_does_not_leap_where_the_tool_points_down(turn_rad: float) -> None:
    """robosuite's quaternions come from MuJoCo's with w of either sign; past half a turn the angle goes on."""
    R = Rotation.from_rotvec([math.pi + turn_rad, 0.0, 0.0])
    quat = R.as_quat()
    quat = quat if quat[0] > 0.0 else -quat
    keys = {"agentview_image": np.zeros((4, 4, 3), np.uint8), "robot0_eye_in_hand_image": np.zeros((4, 4, 3), np.uint8)}
    moment = read_moment(
        {
            **keys,
            "robot0_eef_pos": np.zeros(3),
            "robot0_eef_quat": quat,
            "robot0_gripper_qpos": np.array([0.02, -0.02]),
        },
        LIBERO,
        False,
        False,
    )
    state = observe(LIBERO.observation, moment, 0, None, "").state
    np.testing.assert_allclose(state[3:6], robosuite_axis_angle(quat), atol=1e-9)
    assert moment.gripper_opening == pytest.approx(0.5)


def absolute_contract(period_s: float = 0.05) -> Contract:
    """Absolute poses with openings: another form of the same."""
    action = {"space": "tool", "relative_to": "nothing", "gripper": "opening", "period_s": period_s}
    images = {"image": {"camera": "base"}}
    observation = {"images": images, "state": [{"kind": "gripper"}], "reference": "image"}
    return build(Contract, {"name": "other", "observation": observation, "action": action}, "test")


def test_a_policy_of_another_form_comes_to_the_same_place_with_the_right_gripper_sign(suite) -> None:
    libero, made = suite
    turned = Rotation.from_rotvec([0.0, 0.0, 0.3]) * Rotation.from_rotvec([math.pi - 0.02, 0.0, 0.0])
    rows = [[0.04 * k, 0.0, 1.0 - 0.01 * k, *turned.as_quat(), 0.0] for k in range(1, 6)]
    outcome = drive(libero, Recorded(rows, absolute_contract()), 0, 0, 20)
    (env,) = made
    assert (outcome.is_success, outcome.steps) == (True, 5)
    np.testing.assert_allclose(env.p, [0.2, 0.0, 0.95], atol=1e-9)
    np.testing.assert_allclose((env.R * turned.inv()).magnitude(), 0.0, atol=1e-9)
    # An opening of 0 is closed, which is +1 there.
    assert {action[6] for action in env.actions[SETTLE_STEPS:]} == {1.0}


def test_an_idle_policy_rests_and_keeps_the_gripper_as_it_was_told(suite) -> None:
    libero, _ = suite
    moment = libero.reset(0, 0)
    observation = observe(LIBERO.observation, moment, 5, 0.0, "go")
    idle = ActionChunk(np.zeros((0, 7)), is_idle=True)
    rows = native_actions(idle, LIBERO.action, LIBERO.action, observation, 0.0)
    np.testing.assert_allclose(rows, [[0, 0, 0, 0, 0, 0, 1]], atol=1e-9)


def test_every_task_is_tried_at_every_seed_and_its_rate_has_an_interval(suite) -> None:
    libero, made = suite
    policy = Recorded([[1.0, 0, 0, 0, 0, 0, 1.0]])
    summary = evaluate_external(libero, policy, "recorded", [0, 1, 2], 4, 1, lambda _name, _share: None)
    assert summary["all"]["successes"] == summary["all"]["episodes"] == 6
    assert list(summary["tasks"]) == ["go to the line", "do it again"]
    assert 0.0 < summary["all"]["success_interval"][0] < 1.0
    # From the second initial state it is a step less.
    assert [one["steps"] for one in summary["per_episode"]] == [4, 3, 4] * 2
    assert [env.closed for env in made] == [True, False]


def test_tasks_that_are_asked_for_in_the_same_words_are_told_apart(suite, monkeypatch) -> None:
    libero, _ = suite
    monkeypatch.setattr(type(libero), "instructions", property(lambda _self: ["turn it on", "turn it on"]))
    policy = Recorded([[1.0, 0, 0, 0, 0, 0, 1.0]])
    summary = evaluate_external(libero, policy, "recorded", [0], 4, 1, lambda _name, _share: None)
    assert list(summary["tasks"]) == ["turn it on (task 0)", "turn it on (task 1)"]
    assert [one["episodes"] for one in summary["tasks"].values()] == [1, 1]


def test_what_does_not_fit_is_refused(suite) -> None:
    libero, _ = suite
    with pytest.raises(ContractError, match=r"0\.1 s, the suite's 0\.05 s"):
        drive(libero, Recorded([[0.0] * 8], absolute_contract(0.1)), 0, 0, 5)
    observation = Environment(None).reset()
    del observation["robot0_eef_quat"]
    with pytest.raises(VlaRosError, match="lacks robot0_eef_quat"):
        read_moment(observation, LIBERO, False, False)
    libero.reset(0, 0)
    with pytest.raises(VlaRosError, match="seven finite"):
        libero.step(np.full(7, np.nan))
    with pytest.raises(UnknownNameError, match="family"):
        open_suite("juggling:one")
    with pytest.raises(MissingDependencyError, match="LIBERO"):
        open_suite("libero:libero_goal")
