"""The parts of `vla-ros bench motion`: its peers really move, its judges see what is planted, its arms are singular."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mink")
pytest.importorskip("pink")

from vla_ros import cli
from vla_ros.benchmarks.motion import adversarial, episode, lost_direction, there_and_back, tick, tracking
from vla_ros.benchmarks.motion.arms import (
    SINGULARITIES,
    joint_path,
    load_model,
    mixed_waypoints,
    robot_names,
    singular_configuration,
    tool_targets,
)
from vla_ros.benchmarks.motion.peers import AdaptiveDamping, ConstantDamping, ServoHalting, within
from vla_ros.benchmarks.motion.storm import Storm
from vla_ros.benchmarks.motion.tracking import OURS, Bench, Track
from vla_ros.benchmarks.options import Options
from vla_ros.evaluation.limits_judge import judge_limits
from vla_ros.geometry import se3
from vla_ros.types import ToolChunk

DT_S = 0.004


@pytest.fixture(scope="module")
def panda():
    return load_model("panda")


@pytest.fixture(scope="module")
def panda_bench(panda):
    return Bench(*panda, is_quick=True)


@pytest.mark.parametrize("singularity", SINGULARITIES, ids=lambda item: f"{item.robot}_{item.name}")
def test_a_singularity_is_one_and_lies_inside_the_limits(singularity):
    _, model = load_model(singularity.robot)
    q = singular_configuration(model, singularity)
    left, sigma, _ = np.linalg.svd(model.jacobian(q))
    assert sigma[-1] < 1e-6 < 0.05 < sigma[-2]
    assert np.minimum(q - model.lower, model.upper - q).min() > 0.1
    # By finite differences: no joint moves the tool along the lost direction.
    for joint in range(len(q)):
        step = np.zeros_like(q)
        step[joint] = 1e-6
        moved = se3.pose_error(model.forward_kinematics(q - step), model.forward_kinematics(q + step)) / 2e-6
        assert abs(moved @ left[:, -1]) < 1e-4


@pytest.mark.parametrize("name", robot_names())
def test_peers_reach_a_pose_near_by(name):
    config, model = load_model(name)
    bench = Bench(config, model, is_quick=True)
    start = model.home
    goal_pose = model.forward_kinematics(start) @ se3.make_pose(np.array([0.02, 0.01, -0.02]), np.eye(3))
    tracks = bench.tracks(start, lambda time_s: (goal_pose, np.zeros(6)), 0.8)
    assert tracks[0].name == OURS
    assert {"pink", "mink", "servo_halting"} <= {track.name for track in tracks}
    for track in tracks:
        assert track.errors[0, 0] == pytest.approx(0.03, abs=1e-6), track.name
        assert track.errors[-1, 0] < 2e-4, track.name
        assert track.errors[-1, 1] < 1e-3, track.name
        assert track.report.is_clean, track.name


def test_peers_of_pypi_agree_with_a_damped_inverse_far_from_everything(panda, panda_bench):
    """To first order, whatever solves the task must give the tool the same twist."""
    _, model = panda
    T = model.forward_kinematics(model.home) @ se3.make_pose(np.array([1e-4, -2e-4, 1e-4]), np.eye(3))
    wanted = se3.pose_error(model.forward_kinematics(model.home), T) / DT_S
    for peer in panda_bench.peers:
        twist = model.jacobian(model.home) @ peer.velocities(model.home, T, DT_S)
        tolerance = 0.05 if peer.name.startswith("damping") else 0.01
        np.testing.assert_allclose(twist, wanted, atol=tolerance * np.linalg.norm(wanted), err_msg=peer.name)


def test_halting_slows_between_its_thresholds_and_stops_past_them(panda):
    """Servo's rule by hand: the whole twist times (30 - condition) / (30 - 17)."""
    _, model = panda
    limit = np.full(7, 1e9)
    q = model.home
    T = model.forward_kinematics(q) @ se3.make_pose(np.array([0.001, 0.0, 0.0]), np.eye(3))
    condition = float(np.linalg.cond(model.jacobian(q)))
    free = ServoHalting(model, limit, 1e6, 2e6).velocities(q, T, DT_S)
    half = ServoHalting(model, limit, condition - 5.0, condition + 5.0).velocities(q, T, DT_S)
    np.testing.assert_allclose(half, 0.5 * free, rtol=1e-6)
    assert not ServoHalting(model, limit, 1.0, condition - 0.1).velocities(q, T, DT_S).any()
    twist = se3.pose_error(model.forward_kinematics(q), T) / DT_S
    np.testing.assert_allclose(model.jacobian(q) @ free, twist, atol=1e-6)


def test_dampings_are_the_published_formulas(panda):
    """Constant: the normal equations. Adaptive: exact where no singular value is weak."""
    _, model = panda
    limit, q = np.full(7, 1e9), model.home
    T = model.forward_kinematics(q) @ se3.make_pose(np.array([0.0, 0.001, 0.0]), np.eye(3))
    J = model.jacobian(q)
    twist = se3.pose_error(model.forward_kinematics(q), T) / DT_S
    damped = np.linalg.solve(J.T @ J + 0.2**2 * np.eye(7), J.T @ twist)
    np.testing.assert_allclose(ConstantDamping(model, limit, 0.2).velocities(q, T, DT_S), damped, atol=1e-9)
    np.testing.assert_allclose(
        AdaptiveDamping(model, limit).velocities(q, T, DT_S), np.linalg.pinv(J) @ twist, atol=1e-6
    )


def test_within_keeps_the_direction_and_a_limit_of_zero_stops_everything():
    limit = np.array([1.0, 2.0])
    np.testing.assert_allclose(within(np.array([2.0, 2.0]), limit), [1.0, 1.0])
    np.testing.assert_allclose(within(np.array([0.5, -1.0]), limit), [0.5, -1.0])
    assert not within(np.array([0.5, 0.5]), np.array([1.0, 0.0])).any()


def test_joint_path_rests_at_its_waypoints_and_targets_have_the_twist_of_their_poses(panda):
    _, model = panda
    rng = np.random.default_rng(0)
    waypoints = mixed_waypoints(model, model.home, rng)
    path = joint_path(waypoints[:3], 1.0, DT_S)
    assert len(path) == 500
    np.testing.assert_allclose(path[[0, 250]], waypoints[:2])
    assert np.abs(path[1] - path[0]).max() < 1e-5
    targets = tool_targets(model, path, DT_S)
    moved = se3.pose_error(targets[119].T_base_tcp, targets[121].T_base_tcp) / (2.0 * DT_S)
    np.testing.assert_allclose(targets[120].twist_tcp_in_base, moved, atol=2e-3)
    assert np.all(waypoints >= model.lower)
    assert np.all(waypoints <= model.upper)


def _track(name: str, error_m: float, report) -> Track:
    errors = np.zeros((100, 2))
    errors[:, 0] = error_m
    return Track(name, np.zeros((100, 7)), errors, report)


@pytest.mark.parametrize(("ours", "expected"), [(0.02, 2.0), (0.005, 0.5), (0.01, 1.0), (0.01002, 1.0), (0.0101, 1.01)])
def test_error_over_best_peer_is_over_the_least_and_a_tie_is_one(panda, ours, expected):
    _, model = panda
    clean = judge_limits(np.arange(10) * 4_000_000, np.tile(model.home, (10, 1)), model)
    tracks = [_track(OURS, ours, clean), _track("far", 0.5, clean), _track("near", 0.01, clean)]
    assert lost_direction.over_best_peer(tracks, 99) == (pytest.approx(expected), "near")


def test_a_peer_that_breaks_limits_is_no_peer(panda):
    _, model = panda
    clean = judge_limits(np.arange(10) * 4_000_000, np.tile(model.home, (10, 1)), model)
    jumps = judge_limits(np.arange(10) * 4_000_000, np.outer(np.arange(10), model.home), model)
    tracks = [_track(OURS, 0.01, clean), _track("cheat", 0.0, jumps), _track("honest", 0.02, clean)]
    assert lost_direction.over_best_peer(tracks, 99) == (pytest.approx(0.5), "honest")


def test_pose_error_counts_a_radian_as_its_length_and_is_a_mean(panda):
    errors = np.zeros((100, 2))
    errors[75:, 0], errors[75:, 1] = 0.03, 0.04 / tracking.LENGTH_M
    track = Track("x", np.zeros((100, 7)), errors, None)
    assert track.error_until(99) == pytest.approx(0.05)
    assert track.error_until(99, ticks=50) == pytest.approx(0.025)


def test_a_goal_along_a_direction_leaves_at_its_speed_and_stays():
    T_start = se3.make_pose(np.array([0.4, 0.0, 0.3]), np.eye(3))
    twist = np.array([0.0, 0.06, 0.0, 0.0, 0.0, 0.08])
    goal = lost_direction.along(T_start, twist)
    for time_s, part in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1.4, 1.0)):
        np.testing.assert_allclose(se3.pose_error(T_start, goal(time_s)[0]), part * twist, atol=1e-12)
    assert not goal(1.1)[1].any()


def test_a_sweep_goes_out_stays_and_comes_back_with_the_twist_of_its_poses():
    T_start = se3.make_pose(np.array([0.4, 0.0, 0.3]), np.eye(3))
    way = np.array([0.5, 0.0, 0.1, 0.0, 0.0, 1.0])
    goal = there_and_back.there_and_back(T_start, way)
    np.testing.assert_allclose(se3.pose_error(T_start, goal(2.2)[0]), way, atol=1e-9)
    np.testing.assert_allclose(goal(9.0)[0], T_start, atol=1e-12)
    for time_s in (0.7, 1.9, 3.1, 4.2):
        moved = se3.pose_error(goal(time_s - 1e-5)[0], goal(time_s + 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(goal(time_s)[1], moved, atol=1e-5)


def test_both_floors_give_the_pose_and_the_jacobian_of_the_tcp(panda):
    """Else it would be a floor of something cheaper. The local Jacobian is in the tcp's own axes."""
    config, model = panda
    q = model.home + 0.1
    T, J = model.forward_kinematics(q), model.jacobian(q)
    calls = tick._floors(config, [q])
    J_aligned, placement = calls["aligned"](0)
    np.testing.assert_allclose(J_aligned, J, atol=1e-12)
    np.testing.assert_allclose(placement.homogeneous, T, atol=1e-12)
    J_local, placement = calls["local"](0)
    np.testing.assert_allclose(np.vstack([T[:3, :3] @ J_local[:3], T[:3, :3] @ J_local[3:]]), J, atol=1e-12)
    np.testing.assert_allclose(placement.homogeneous, T, atol=1e-12)


def test_a_peer_that_does_not_follow_is_no_comparison(monkeypatch):
    monkeypatch.setattr(tick.Pink, "tick", lambda self, target, dt_s: None)
    result = tick.run(Options(ticks=600))
    assert result.figures["ik_over_pink"] is None
    assert result.figures["ik_over_mink"] is not None
    assert any("pink is" in problem for problem in result.problems)


# Adversity


def test_an_episode_is_reproduced_by_its_seed():
    robots = robot_names()
    first, second = (adversarial.run_episode(5, 150, robots) for _ in range(2))
    assert first["counts"] == second["counts"]
    assert first["counts"]["ticks"] == 150


@pytest.mark.parametrize(("order", "quantity"), [(0, "position"), (1, "velocity"), (2, "acceleration"), (3, "jerk")])
def test_a_planted_violation_is_counted_with_its_tick(order, quantity):
    """A thousandth past the limit in one tick, by integration from rest; what it passes besides isn't named first."""
    run = episode.Episode("ur5e", 3)
    model = run.model
    limit = {0: None, 1: model.velocity, 2: model.acceleration, 3: model.jerk}[order]
    h = run.dt_s
    values = np.zeros(200)
    q = np.tile(model.home, (200, 1))
    if limit is None:
        q[100:, 2] = model.upper[2] + 1e-6
        q[:100, 2] = model.upper[2] - 1e-6
    else:
        values[100] = 1.001 * limit[2]
        for _ in range(order):
            values = np.cumsum(values) * h
        q[:, 2] = model.home[2] + values
    run.sent = list(q)
    verdict = episode.judge_episode(run)
    assert verdict.violations > 0
    assert verdict.first_tick == pytest.approx(100, abs=3)
    assert quantity in verdict.first or order in (1, 2)  # A jump in speed is one of jerk, in the same tick.


def test_a_command_that_is_no_number_is_counted():
    run = episode.Episode("panda", 3)
    q = np.tile(run.model.home, (50, 1))
    q[20, 1] = np.nan
    run.sent = list(q)
    assert episode.judge_episode(run).not_finite == 1
    assert episode.judge_episode(run).violations > 0


def test_a_pause_of_the_stream_begins_a_new_stretch():
    run = episode.Episode("panda", 3)
    home = run.model.home
    run.sent = [home] * 10 + [None] * 5 + [home + 0.2] * 10
    assert episode.judge_episode(run).violations == 0
    run.sent = [home] * 10 + [home + 0.2] * 10
    assert episode.judge_episode(run).violations > 0


def test_a_joint_that_starts_outside_may_come_back_but_not_go_further_out():
    lower, upper = np.array([-1.0]), np.array([1.0])
    back = np.linspace(1.1, 0.9, 50)[:, None]
    assert episode.return_violations(back, lower, upper)[1] == 0
    further = np.concatenate([back[:5], back[:5][::-1] + 0.01])
    assert episode.return_violations(further, lower, upper)[1] > 0
    outside_again = np.concatenate([back, [[1.05]]])
    assert episode.return_violations(outside_again, lower, upper)[1] == 1
    assert not episode.return_violations(0.5 * back, lower, upper)[0].any()


def test_an_exception_of_the_path_is_a_failure_with_the_words_to_see_it_again(monkeypatch):
    def fail(self, *_arguments):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(episode.SafetyFilter, "step", fail)
    result = adversarial.run_episode(7, 20, ("panda",))
    assert result["counts"]["exceptions"] == 1
    (failure,) = result["failures"]
    assert "planted" in failure["what"]
    assert "--only adversarial --seed 7" in adversarial._sentence(failure)


def test_a_storm_sends_everything_that_was_promised(panda):
    _, model = panda
    kinds = set()
    for seed in range(40):
        storm = Storm(model, np.random.default_rng(seed))
        for number in range(40):
            chunk = storm.chunk(10**18 + number, model.home, "one")
            values = chunk.transforms if isinstance(chunk, ToolChunk) else chunk.positions
            times_s = chunk.time_from_start_s
            kinds |= {
                type(chunk).__name__,
                "empty" if not len(times_s) else "",
                "other source" * (chunk.source != "one"),
            }
            with np.errstate(invalid="ignore"):
                kinds |= {"nan" * bool(np.isnan(values).any()), "inf" * bool(np.isinf(values).any())}
                kinds |= {"huge" * bool((np.abs(values) > 1e100).any()), "length" * (len(values) != len(times_s))}
                kinds |= {"times" * bool(len(times_s) > 1 and (np.diff(times_s) <= 0.0).any())}
    expected = {"ToolChunk", "JointChunk", "empty", "other source", "nan", "inf", "huge", "length", "times"}
    assert expected <= kinds


@pytest.mark.slow
def test_a_tiny_run_has_every_promised_key(capsys, tmp_path):
    """All but what needs ROS, with as little of it as there can be."""
    only = "tick,tick_p99,adversarial"
    words = ["bench", "motion", "--quick", "--ticks", "120", "--only", only, "--out", str(tmp_path), "--json"]
    code = cli.main(words)
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    keys = {"ik_over_floor", "ik_over_pink", "ik_over_mink", "tick_p99_ms", "adversarial_ticks", "violations"}
    assert keys | {"versions", "machine", "seed", "details", "requirements"} <= set(results)
    assert results["adversarial_ticks"] == 120
    assert results["details"]["tick"]["a_a"]["median"] == pytest.approx(1.0, abs=0.5)
    assert code == (0 if results["passed"] else 1)
    assert {path.name for path in tmp_path.iterdir()} >= {"results.json", "tick.png", "tick_p99.png", "adversarial.png"}


def test_stiff_joints_are_drawn_and_stand_still():
    """A limit of 0 is a limit, in one robot of ten."""
    config, _ = load_model("panda")
    drawn = [episode._with_stiff_joints(config, np.random.default_rng(seed)) for seed in range(60)]
    stiff = [
        robot
        for robot in drawn
        if any(0.0 in (j.velocity_rad_s, j.acceleration_rad_s2, j.jerk_rad_s3) for j in robot.joints)
    ]
    assert 2 <= len(stiff) <= 15
    assert replace(stiff[0], joints=config.joints) == config
