"""The arm keeps its own links apart, whatever it is asked to do, and gets out where it starts too near."""

from __future__ import annotations

import numpy as np
import pytest

from vla_ros.control.cartesian_controller import CartesianController
from vla_ros.control.config import ControllerConfig
from vla_ros.geometry import se3
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.self_collision import SelfCollision
from vla_ros.types import FloatArray, JointTarget, ToolTarget

# What an arm in full swing may lose of its margin: its stop is foreseen at some instants, not at all.
LEAST_M = ControllerConfig().collision_margin_m - 2e-4


@pytest.fixture(scope="module", params=["panda", "ur5e", "fr3", "ur10e"])
def controller(request: pytest.FixtureRequest) -> CartesianController:
    return CartesianController(RobotModel.from_config(load_robot(request.param)), ControllerConfig())


def touching_posture(model: RobotModel, collision: SelfCollision, seed: int) -> FloatArray:
    """Inside the limits, links in each other."""
    rng = np.random.default_rng(seed)
    while True:
        q: FloatArray = rng.uniform(model.lower + 0.1, model.upper - 0.1)
        if collision.distance(q) < -0.02:
            return q


def distances(collision: SelfCollision, positions: list[FloatArray]) -> FloatArray:
    return np.array([collision.distance(q) for q in positions])


@pytest.mark.parametrize("seed", [1, 11, 14])
def test_joint_targets_into_the_arm_itself_end_before_it(controller: CartesianController, seed: int) -> None:
    model, collision = controller.model, SelfCollision(controller.model)
    state, positions, named = controller.init(model.home), [], set()
    target = JointTarget(0, touching_posture(model, collision, seed), np.zeros(len(model.names)))
    for _ in range(500):
        state, command, report = controller.step(state, target, controller.dt_s)
        positions.append(command.positions)
        named |= {item.limit for item in report.interventions}
    assert np.min(distances(collision, positions)) >= LEAST_M
    assert "self_collision" in named
    assert np.max(np.abs(positions[-1] - model.home)) > 0.1  # It did go as far as it could.
    for _ in range(700):
        state, command, _ = controller.step(state, JointTarget(0, model.home, target.velocities), controller.dt_s)
    np.testing.assert_allclose(command.positions, model.home, atol=1e-6)


def test_tool_led_into_the_arm_itself_keeps_the_links_apart(controller: CartesianController) -> None:
    """The tool is wanted at the arm's own base, where the arm's links stand in the way, or else its reach ends."""
    model, collision = controller.model, SelfCollision(controller.model)
    T, named = model.forward_kinematics(model.home), set()
    for height_m in (0.1, 0.25, 0.4):
        goal, state, positions = np.array([0.0, 0.0, height_m]), controller.init(model.home), []
        for tick in range(1200):
            share = min(1.0, tick / 900)
            p = (1.0 - share) * T[:3, 3] + share * goal
            twist = np.concatenate([(goal - T[:3, 3]) / 3.6, np.zeros(3)]) if share < 1.0 else np.zeros(6)
            target = ToolTarget(tick, se3.make_pose(p, T[:3, :3]), twist)
            state, command, report = controller.step(state, target, controller.dt_s)
            positions.append(command.positions)
            named |= {item.limit for item in report.interventions}
        assert np.min(distances(collision, positions)) >= LEAST_M
    assert "self_collision" in named


def test_arm_that_starts_too_near_to_itself_gets_out_and_never_deeper(controller: CartesianController) -> None:
    model, collision = controller.model, SelfCollision(controller.model)
    start = touching_posture(model, collision, 7)
    state = controller.init(start)
    positions = [start]
    for _ in range(1500):
        state, command, _ = controller.step(state, JointTarget(0, model.home, np.zeros(len(start))), controller.dt_s)
        positions.append(command.positions)
    found = distances(collision, positions)
    assert np.min(found) >= found[0] - 1e-4


def test_no_distance_is_believed_that_is_greater_than_the_true_one(controller: CartesianController) -> None:
    """The bound that is carried from tick to tick, instead of computing distances, never exceeds them."""
    model, collision = controller.model, SelfCollision(controller.model)
    rng = np.random.default_rng(2)
    state, gaps = controller.init(model.home), []
    for _ in range(12):
        target = JointTarget(0, model.home + rng.uniform(-0.5, 0.5, len(model.home)), np.zeros(len(model.home)))
        for _ in range(100):
            state, command, _ = controller.step(state, target, controller.dt_s)
            gaps.append(collision.distance(command.positions) - state.clearance_m)
    assert min(gaps) >= -1e-9
    assert max(gaps) > 1e-3  # It was carried, not computed.
