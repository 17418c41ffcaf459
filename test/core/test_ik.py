"""Damped least squares: exact where it can be, bounded where it can't, continuous in between. The same in a box."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, lsq_linear, minimize, minimize_scalar

from vla_ros.control.ik import DampedSolver, QpSolver
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

DAMPING, THRESHOLD = 0.05, 0.08
UR5E_HOME = np.array([-0.287564, -1.662072, 1.549983, -1.458708, -1.570796, -1.85836])
PANDA_HOME = np.array([0.0, -0.269539, 0.0, -2.228969, 0.0, 1.95943, 0.785398])


@pytest.fixture(scope="module", params=["panda", "ur5e"])
def model(request: pytest.FixtureRequest) -> RobotModel:
    return RobotModel.from_config(load_robot(request.param))


def singular_jacobians() -> dict[str, FloatArray]:
    ur5e = RobotModel.from_config(load_robot("ur5e"))
    panda = RobotModel.from_config(load_robot("panda"))
    wrist, elbow = UR5E_HOME.copy(), UR5E_HOME.copy()
    wrist[4] = 0.0
    elbow[2] = 0.0
    # Shoulder: the point where the last two axes meet, over the first axis. Found by halving along the elbow's fold.
    low, high = np.array([0.0, -1.2, 2.0, -1.0, -1.0, 0.0]), np.array([0.0, -1.2, 3.1, -1.0, -1.0, 0.0])
    side = [np.linalg.det(ur5e.jacobian(q)) for q in (low, high)]
    assert side[0] * side[1] < 0.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        if np.linalg.det(ur5e.jacobian(middle)) * side[0] > 0.0:
            low = middle
        else:
            high = middle
    # Panda, tcp at (0.68, 0, 0.53) m: axes 1 and 3 are one line, and the seventh meets it where the fifth does.
    interior = np.array([0.0, 0.0, 0.0, -2.1, 0.0, 3.3091, 0.0])
    turn = np.eye(7)[5]
    found = minimize_scalar(
        lambda by: np.linalg.svd(panda.jacobian(interior + by * turn), compute_uv=False)[-1],
        bounds=(-0.01, 0.01),
        method="bounded",
        options={"xatol": 1e-12},
    )
    interior = interior + found.x * turn
    assert np.all((interior > panda.lower) & (interior < panda.upper))
    return {
        "ur5e wrist": ur5e.jacobian(wrist),
        "ur5e elbow": ur5e.jacobian(elbow),
        "ur5e shoulder": ur5e.jacobian(low),
        "panda interior": panda.jacobian(interior),
        "nothing at all": np.zeros((6, 7)),
    }


SINGULAR = ("ur5e wrist", "ur5e elbow", "ur5e shoulder", "panda interior", "nothing at all")


@pytest.fixture(scope="module")
def singular() -> dict[str, FloatArray]:
    return singular_jacobians()


def random_postures(model: RobotModel, count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(model.lower, model.upper, (count, len(model.names)))


def with_singular_values(sigma: FloatArray, columns: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (6, columns))
    J: FloatArray = left @ np.hstack([np.diag(sigma), np.zeros((6, columns - 6))]) @ right.T
    return J


def damped(J: FloatArray, twist: FloatArray, posture: FloatArray) -> FloatArray:
    return DampedSolver(DAMPING, THRESHOLD).free(J, twist, posture)


def test_away_from_singularities_it_is_the_pseudo_inverse(model: RobotModel) -> None:
    rng = np.random.default_rng(1)
    regular = 0
    for q in random_postures(model, 200, seed=0):
        J = model.jacobian(q)
        if np.linalg.svd(J, compute_uv=False)[-1] < THRESHOLD:
            continue
        regular += 1
        twist, posture = rng.normal(size=6), np.zeros(len(q))
        got = damped(J, twist, posture)
        np.testing.assert_allclose(got, np.linalg.pinv(J) @ twist, rtol=1e-8, atol=1e-9)
    assert regular > 30


@pytest.mark.parametrize("name", SINGULAR)
def test_velocity_stays_bounded_at_singularities(name: str, singular: dict[str, FloatArray]) -> None:
    J = singular[name]
    assert np.linalg.svd(J, compute_uv=False)[-1] < 1e-7
    # Gain of one direction against its singular value, on a grid: at most the undamped one at the threshold and a half.
    sigma = np.linspace(1e-6, THRESHOLD, 10_000)
    highest = np.max(sigma / (sigma**2 + ((1 - sigma / THRESHOLD) * DAMPING) ** 2))
    assert highest < 1.5 / THRESHOLD
    rng = np.random.default_rng(3)
    for scale in (0.0, 1e-9, 1e-6, 1e-4, 1e-2, 0.05):
        for _ in range(40):
            near, twist = J + scale * rng.normal(size=J.shape), rng.normal(size=6)
            got = damped(near, twist, np.zeros(J.shape[1]))
            assert np.linalg.norm(got) <= highest * np.linalg.norm(twist) * (1 + 1e-9)


@pytest.mark.parametrize("name", SINGULAR[:4])
def test_lost_direction_takes_nothing_and_the_others_stay_exact(name: str, singular: dict[str, FloatArray]) -> None:
    J = singular[name]
    left, sigma, _ = np.linalg.svd(J)
    strong = sigma >= THRESHOLD
    assert 3 <= np.count_nonzero(strong) < 6
    rng = np.random.default_rng(4)
    for _ in range(20):
        twist = rng.normal(size=6)
        got = damped(J, twist, np.zeros(J.shape[1]))
        in_directions = left.T @ (J @ got)
        np.testing.assert_allclose(in_directions[strong], (left.T @ twist)[strong], atol=1e-8)
        np.testing.assert_allclose(in_directions[sigma < 1e-7], 0.0, atol=1e-8)
        # What is weak is done in part, never overdone and never the wrong way.
        share = in_directions / (left.T @ twist)
        assert np.all(share >= -1e-8)
        assert np.all(share <= 1.0 + 1e-8)


def test_posture_does_not_move_the_tcp() -> None:
    model = RobotModel.from_config(load_robot("panda"))
    rng = np.random.default_rng(5)
    moved = []
    for q in [PANDA_HOME, *random_postures(model, 40, seed=6)]:
        J = model.jacobian(q)
        posture, twist = rng.normal(size=7), rng.normal(size=6)
        alone = damped(J, np.zeros(6), posture)
        np.testing.assert_allclose(J @ alone, 0.0, atol=1e-10)
        both = damped(J, twist, posture)
        without = damped(J, twist, np.zeros(7))
        np.testing.assert_allclose(J @ both, J @ without, atol=1e-9)
        moved.append(np.linalg.norm(alone))
        # By finite differences of the pose: what is left is of second order.
        h = 1e-5
        step = model.forward_kinematics(q + h * alone) - model.forward_kinematics(q - h * alone)
        np.testing.assert_allclose(step / (2 * h), 0.0, atol=1e-7)
    assert min(moved) > 0.0
    assert np.mean(moved) > 0.3


def test_arm_of_six_joints_has_no_room_for_a_posture() -> None:
    model = RobotModel.from_config(load_robot("ur5e"))
    got = damped(model.jacobian(UR5E_HOME), np.zeros(6), np.ones(6))
    np.testing.assert_allclose(got, 0.0, atol=1e-12)


@pytest.mark.parametrize("columns", [6, 7])
def test_solution_is_continuous_through_the_threshold_and_down_to_the_singularity(columns: int) -> None:
    twist = np.random.default_rng(7).normal(size=6)
    values = []
    grid = np.linspace(2.0 * THRESHOLD, 0.0, 4001)
    for sigma in grid:
        J = with_singular_values(np.array([1.2, 0.9, 0.7, 0.5, 0.3, sigma]), columns)
        values.append(damped(J, twist, np.zeros(columns)))
    steps = np.linalg.norm(np.diff(values, axis=0), axis=1)
    # The gain f(s) = s / (s^2 + d(s)^2) changes by at most 1 / d^2 = 400 per unit of s, a step here by 0.016.
    assert steps.max() <= 1.05 / DAMPING**2 * (grid[0] - grid[1]) * np.linalg.norm(twist)
    # And its slope has no step at the threshold: damping begins there quadratically.
    at = 2000
    assert steps[at - 1] == pytest.approx(steps[at], rel=0.02)
    np.testing.assert_allclose(values[-1], values[-2], atol=0.05)


def test_two_weak_directions_are_damped_each_by_itself() -> None:
    sigma = np.array([1.0, 0.8, 0.6, 0.4, 0.07, 0.0])
    J = with_singular_values(sigma, 7, seed=8)
    left = np.linalg.svd(J)[0]
    for column in range(6):
        got = damped(J, left[:, column], np.zeros(7))
        share = float(left[:, column] @ J @ got)
        damping2 = ((1 - 0.07 / THRESHOLD) * DAMPING) ** 2
        wanted = (1.0, 1.0, 1.0, 1.0, 0.07**2 / (0.07**2 + damping2), 0.0)[column]
        assert share == pytest.approx(wanted, abs=1e-8)


def test_damped_solver_keeps_the_tools_direction_at_a_bound() -> None:
    rng = np.random.default_rng(9)
    for _ in range(50):
        solver, J, twist = DampedSolver(DAMPING, THRESHOLD), rng.normal(size=(6, 7)), rng.normal(size=6)
        free, bound = solver.free(J, twist, np.zeros(7)), rng.uniform(0.05, 0.5, 7)
        got = solver.bounded(-bound, bound)
        assert np.all(np.abs(got) <= bound)
        assert np.max(np.abs(got) / bound) == pytest.approx(min(1.0, np.max(np.abs(free) / bound)))
        np.testing.assert_allclose(got / np.linalg.norm(got), free / np.linalg.norm(free), atol=1e-12)


# Of what the program minimises at a bound: the weight of the distance to the unbounded solution.
CLOSENESS = 0.005


def problem(J: FloatArray, twist: FloatArray, posture: FloatArray, damping: float) -> tuple[FloatArray, FloatArray]:
    """A and b of |A v - b|^2, the three parts of the cost below each other."""
    one = np.eye(J.shape[1])
    A, b = np.vstack([J, damping * one]), np.concatenate([twist, damping * posture])
    free = np.linalg.lstsq(A, b)[0]
    return np.vstack([A, np.sqrt(CLOSENESS) * one]), np.concatenate([b, np.sqrt(CLOSENESS) * free])


@pytest.mark.parametrize("columns", [6, 7])
def test_qp_without_bounds_is_least_squares(columns: int) -> None:
    rng = np.random.default_rng(10)
    solver = QpSolver(columns, damping=0.02)
    for _ in range(50):
        J, twist, posture = rng.normal(size=(6, columns)), rng.normal(size=6), rng.normal(size=columns)
        A, b = np.vstack([J, 0.02 * np.eye(columns)]), np.concatenate([twist, 0.02 * posture])
        free = solver.free(J, twist, solver.posture_weight * posture)
        np.testing.assert_allclose(free, np.linalg.lstsq(A, b)[0], atol=1e-8)


@pytest.mark.parametrize("damping", [1e-3, 0.05])
def test_qp_is_the_best_inside_its_box_by_scipys_reckoning(model: RobotModel, damping: float) -> None:
    rng = np.random.default_rng(11)
    n = len(model.names)
    solver = QpSolver(n, damping)
    bound_count = 0
    for q in random_postures(model, 60, seed=12):
        J, twist, posture = model.jacobian(q), rng.normal(size=6), rng.normal(size=n)
        lower, upper = -rng.uniform(0.0, 1.0, n), rng.uniform(0.01, 1.0, n)
        solver.free(J, twist, solver.posture_weight * posture)
        got = solver.bounded(lower, upper)
        A, b = problem(J, twist, posture, damping)
        best = lsq_linear(A, b, bounds=(lower, upper), tol=1e-14, method="bvls").x
        assert np.all((got >= lower) & (got <= upper))
        assert np.sum((A @ got - b) ** 2) <= np.sum((A @ best - b) ** 2) * (1 + 1e-6) + 1e-9
        # What a tick's way is asked for is the same, in small.
        solver.free(J, 1e-4 * twist, 1e-4 * solver.posture_weight * posture)
        np.testing.assert_allclose(solver.bounded(1e-4 * lower, 1e-4 * upper), 1e-4 * got, atol=1e-8)
        bound_count += np.any((got == lower) | (got == upper))
    assert bound_count > 30


def test_qp_keeps_half_spaces_and_gives_them_up_before_its_box() -> None:
    rng = np.random.default_rng(13)
    solver, kept = QpSolver(7, 0.01), 0
    for _ in range(40):
        J, twist, posture = rng.normal(size=(6, 7)), rng.normal(size=6), np.zeros(7)
        rows, least = rng.normal(size=(2, 7)), rng.uniform(-0.2, 0.2, 2)
        bound = np.full(7, 0.6)
        free = solver.free(J, twist, posture)
        got = solver.bounded(-bound, bound, rows, least)
        assert np.all(rows @ got >= least - 1e-6)
        kept += np.any(rows @ np.clip(free, -bound, bound) < least)
        A, b = problem(J, twist, posture, 0.01)
        best = minimize(
            lambda v, A=A, b=b: np.sum((A @ v - b) ** 2),
            np.zeros(7),
            bounds=[(-0.6, 0.6)] * 7,
            constraints=[LinearConstraint(rows, least, np.inf)],
            method="trust-constr",
            options={"gtol": 1e-9, "xtol": 1e-12, "maxiter": 3000},
        )
        assert np.sum((A @ got - b) ** 2) <= best.fun + 1e-4
    assert kept > 10
    J = rng.normal(size=(6, 7))
    solver.free(J, np.ones(6), np.zeros(7))
    impossible = solver.bounded(-bound, bound, np.ones((1, 7)), np.array([100.0]))
    assert np.all(np.abs(impossible) <= bound)


def test_qp_solution_does_not_depend_on_what_was_solved_before() -> None:
    rng = np.random.default_rng(14)
    solver = QpSolver(7, 1e-3)
    questions = [(rng.normal(size=(6, 7)), rng.normal(size=6), rng.uniform(0.01, 0.3, 7)) for _ in range(30)]

    def ask(solver: QpSolver, J: FloatArray, twist: FloatArray, bound: FloatArray) -> FloatArray:
        solver.free(J, twist, np.zeros(7))
        return solver.bounded(-bound, bound)

    one_after_another = [ask(solver, *question) for question in questions]
    for question, answer in zip(questions, one_after_another, strict=True):
        np.testing.assert_array_equal(ask(QpSolver(7, 1e-3), *question), answer)


def test_no_step_is_lost_at_the_edge_of_feasibility() -> None:
    """A box of a single point, as a joint with a limit of zero has, is answered with that point."""
    solver = QpSolver(7, 1e-3)
    solver.free(np.random.default_rng(15).normal(size=(6, 7)), np.ones(6), np.zeros(7))
    lower = np.array([-1.0, 0.0, -0.5, 0.2, -1.0, -1.0, 0.0])
    upper = np.array([1.0, 0.0, 0.5, 0.2, 1.0, 1.0, 0.0])
    got = solver.bounded(lower, upper)
    assert (got[1], got[3], got[6]) == (0.0, 0.2, 0.0)
    assert np.max(np.abs(got)) > 0.25
