"""Velocity limits that depend on the position: the FR3's against libfranka's formulae, and what a curve may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.config import config_names, find_config
from vla_ros.errors import ConfigError
from vla_ros.robots.config import JointConfig, load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.robots.velocity_limits import VelocityByPosition, VelocityCurve, VelocityLimits
from vla_ros.types import FloatArray

ROBOTS = config_names("robots")


def libfranka_upper(q: FloatArray) -> list[float]:
    """Source: libfranka 0.15, rate_limiting.h, computeUpperLimitsJointVelocity, without its tolerance of 0.001."""
    return [
        min(2.62, max(0.0, -0.30 + max(0.0, 12.0 * (2.75010 - q[0])) ** 0.5)),
        min(2.62, max(0.0, -0.20 + max(0.0, 5.17 * (1.79180 - q[1])) ** 0.5)),
        min(2.62, max(0.0, -0.20 + max(0.0, 7.00 * (2.90650 - q[2])) ** 0.5)),
        min(2.62, max(0.0, -0.30 + max(0.0, 8.00 * (-0.1458 - q[3])) ** 0.5)),
        min(5.26, max(0.0, -0.35 + max(0.0, 34.0 * (2.81010 - q[4])) ** 0.5)),
        min(4.18, max(0.0, -0.35 + max(0.0, 11.0 * (4.52050 - q[5])) ** 0.5)),
        min(5.26, max(0.0, -0.35 + max(0.0, 34.0 * (3.01960 - q[6])) ** 0.5)),
    ]


def libfranka_lower(q: FloatArray) -> list[float]:
    """Source: as above, computeLowerLimitsJointVelocity."""
    return [
        max(-2.62, min(0.0, 0.30 - max(0.0, 12.0 * (2.750100 + q[0])) ** 0.5)),
        max(-2.62, min(0.0, 0.20 - max(0.0, 5.17 * (1.791800 + q[1])) ** 0.5)),
        max(-2.62, min(0.0, 0.20 - max(0.0, 7.00 * (2.906500 + q[2])) ** 0.5)),
        max(-2.62, min(0.0, 0.30 - max(0.0, 8.00 * (3.048100 + q[3])) ** 0.5)),
        max(-5.26, min(0.0, 0.35 - max(0.0, 34.0 * (2.810100 + q[4])) ** 0.5)),
        max(-4.18, min(0.0, 0.35 - max(0.0, 11.0 * (-0.54092 + q[5])) ** 0.5)),
        max(-5.26, min(0.0, 0.35 - max(0.0, 34.0 * (3.019600 + q[6])) ** 0.5)),
    ]


def test_all_fourteen_curves_of_the_fr3_are_libfrankas() -> None:
    model = RobotModel.from_config(load_robot("fr3"))
    rng = np.random.default_rng(11)
    near_an_end = np.where(rng.random((1000, 7)) < 0.5, model.lower, model.upper) + rng.uniform(-0.5, 0.5, (1000, 7))
    for q in np.concatenate([rng.uniform(model.lower, model.upper, (1000, 7)), near_an_end]):
        lower, upper = model.velocity_bounds(q)
        # The root of rounding, where the curve begins: sqrt(34 * 1e-15).
        np.testing.assert_allclose(upper, libfranka_upper(q), atol=1e-7)
        np.testing.assert_allclose(lower, libfranka_lower(q), atol=1e-7)


@pytest.mark.parametrize("name", ROBOTS)
def test_many_positions_at_once_give_what_each_gives(name: str) -> None:
    model = RobotModel.from_config(load_robot(name))
    q = np.random.default_rng(12).uniform(model.lower - 0.1, model.upper + 0.1, (50, len(model.names)))
    together = model.velocity_bounds(q)
    for i, row in enumerate(q):
        for bounds, alone in zip(together, model.velocity_bounds(row), strict=True):
            np.testing.assert_array_equal(bounds[i], alone)


@pytest.mark.parametrize("name", ROBOTS)
def test_bounds_never_exceed_the_constant_limit_and_let_the_arm_leave_an_end(name: str) -> None:
    model = RobotModel.from_config(load_robot(name))
    q = np.random.default_rng(13).uniform(model.lower, model.upper, (1000, len(model.names)))
    lower, upper = model.velocity_bounds(q)
    for bounds in (-lower, upper):
        assert (bounds >= 0.0).all()
        assert (bounds <= model.velocity).all()
    assert (model.velocity_bounds(model.upper)[0] < 0.0).all()
    assert (model.velocity_bounds(model.lower)[1] > 0.0).all()


@pytest.mark.parametrize("name", ["panda", "ur5e", "ur10e"])
def test_without_curves_the_bounds_are_the_constant_limit(name: str) -> None:
    model = RobotModel.from_config(load_robot(name))
    lower, upper = model.velocity_bounds(model.home)
    np.testing.assert_array_equal(upper, model.velocity)
    np.testing.assert_array_equal(lower, -model.velocity)


def test_what_is_returned_is_the_callers_own() -> None:
    model = RobotModel.from_config(load_robot("panda"))
    model.velocity_bounds(model.home)[1][:] = 0.0
    np.testing.assert_array_equal(model.velocity_bounds(model.home)[1], model.velocity)
    assert (model.velocity > 0.0).all()


def test_bounds_follow_the_order_of_the_yaml() -> None:
    config = load_robot("fr3")
    order = [3, 6, 0, 2, 5, 1, 4]
    mixed = RobotModel.from_config(replace(config, joints=tuple(config.joints[i] for i in order)))
    plain = RobotModel.from_config(config)
    q = np.random.default_rng(14).uniform(plain.lower, plain.upper)
    for bounds, expected in zip(mixed.velocity_bounds(q[order]), plain.velocity_bounds(q), strict=True):
        np.testing.assert_array_equal(bounds, expected[order])


def test_a_tighter_limit_of_the_urdf_caps_the_curves_too() -> None:
    config = load_robot("fr3")
    description = RobotModel.from_config(config).description.replace('velocity="2.62"', 'velocity="0.5"')
    lower, upper = RobotModel(config, description).velocity_bounds(
        np.array([joint.home_rad for joint in config.joints])
    )
    np.testing.assert_array_equal(upper[:4], [0.5] * 4)
    np.testing.assert_array_equal(lower[:4], [-0.5] * 4)


@settings(max_examples=200, deadline=None)
@given(
    velocity=st.floats(0.0, 6.0),
    offset=st.floats(-1.0, 1.0),
    gain=st.floats(0.0, 50.0),
    positions=st.lists(st.floats(-4.0, 4.0), min_size=2, max_size=2).map(sorted),
)
def test_the_nearer_the_end_the_slower(velocity: float, offset: float, gain: float, positions: list[float]) -> None:
    """Whatever the curve, and a limit of 0 stays 0."""
    curves = VelocityByPosition(VelocityCurve(offset, gain, 2.0), VelocityCurve(offset, gain, -2.0))
    limits = VelocityLimits(np.array([velocity]), [curves])
    (low_before, up_before), (low_after, up_after) = (limits.bounds(np.array([q])) for q in positions)
    assert velocity >= up_before[0] >= up_after[0] >= 0.0
    assert -velocity <= low_after[0] <= low_before[0] <= 0.0
    # The slower way of saying the same.
    down, up = curves.speeds(positions[0])
    assert up_before[0] == pytest.approx(min(velocity, up), abs=1e-6)
    assert -low_before[0] == pytest.approx(min(velocity, down), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gain_rad_s2": -1.0}, r"gain_rad_s2 is -1\.0, it has to be finite and 0 or more"),
        ({"gain_rad_s2": float("inf")}, "gain_rad_s2 is inf"),
        ({"gain_rad_s2": float("nan")}, "gain_rad_s2 is nan"),
        ({"offset_rad_s": float("nan")}, "offset_rad_s is nan, it has to be finite"),
        ({"zero_rad": float("inf")}, "zero_rad is inf, it has to be finite"),
    ],
)
def test_a_curve_that_is_none_is_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VelocityCurve(**{"offset_rad_s": -0.3, "gain_rad_s2": 12.0, "zero_rad": 2.0, **changes})


def test_curves_that_leave_no_speed_at_home_are_refused() -> None:
    """As with the sign of a zero forgotten: the arm could never move."""
    curve = VelocityCurve(-0.3, 12.0, 2.0)
    with pytest.raises(ValueError, match="joint a: velocity_by_position leaves no speed at home_rad 0"):
        JointConfig("a", 0.0, (-2.0, 2.0), 1.0, 1.0, 1.0, VelocityByPosition(curve, curve))


def test_an_error_in_a_robots_yaml_names_file_and_curve(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = find_config("robots", "fr3").read_text(encoding="utf-8")
    path.write_text(text.replace("gain_rad_s2: 12.0", "gain_rad_s2: -12.0", 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_robot(str(path))
    assert str(caught.value).startswith(f"{path}: joints[0]: velocity_by_position: upper: gain_rad_s2 is -12.0")
