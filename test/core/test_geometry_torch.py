"""Geometry on tensors: the same numbers as on arrays, derivatives by finite differences, none that isn't finite."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")

from vla_ros.geometry import averaging, lie, rotations, se3

RNG = np.random.default_rng(3)
AXES = RNG.normal(size=(24, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
# Ordinary angles, none, and either side of where series end and of a half turn.
ANGLES = np.concatenate([RNG.uniform(0.0, np.pi, 12), [0.0, 1e-9, 1e-4, 0.0199, 0.0201, 0.0316, 0.0317, 3.0, 3.1]])
ANGLES = np.concatenate([ANGLES, [np.pi - 1e-3, np.pi - 1e-6, np.pi - 1e-9]])
ROTVECS = ANGLES[:, None] * AXES
R = rotations.rotvec_to_matrix(ROTVECS)
R_OTHER = rotations.rotvec_to_matrix(RNG.normal(size=(24, 3)))
T = se3.make_pose(RNG.normal(size=(24, 3)), R)
T_OTHER = se3.make_pose(RNG.normal(size=(24, 3)), R_OTHER)
NEAR = R_OTHER[:, None] @ rotations.rotvec_to_matrix(RNG.uniform(-0.8, 0.8, size=(24, 5, 3)))
T_NEAR = se3.make_pose(RNG.normal(size=(24, 5, 3)), NEAR)
WEIGHTS = RNG.uniform(0.1, 1.0, size=5)

# Every function that has both kinds, with arguments.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "rotvec_to_matrix": (rotations.rotvec_to_matrix, (ROTVECS,)),
    "matrix_to_rotvec": (rotations.matrix_to_rotvec, (R,)),
    "quat_xyzw_to_matrix": (rotations.quat_xyzw_to_matrix, (RNG.normal(size=(24, 4)),)),
    "matrix_to_quat_xyzw": (rotations.matrix_to_quat_xyzw, (R,)),
    "rpy_to_matrix": (rotations.rpy_to_matrix, (RNG.uniform(-3, 3, (24, 3)),)),
    "matrix_to_rpy": (rotations.matrix_to_rpy, (R,)),
    "rot6d_to_matrix": (rotations.rot6d_to_matrix, (RNG.normal(size=(24, 6)),)),
    "matrix_to_rot6d": (rotations.matrix_to_rot6d, (R,)),
    "rot6d_rows_to_matrix": (rotations.rot6d_rows_to_matrix, (RNG.normal(size=(24, 6)),)),
    "matrix_to_rot6d_rows": (rotations.matrix_to_rot6d_rows, (R,)),
    "angle_between": (rotations.angle_between, (R, R_OTHER)),
    "slerp": (rotations.slerp, (R, R_OTHER, RNG.uniform(size=24))),
    "make_pose": (se3.make_pose, (ROTVECS, R)),
    "make_pose_of_positions": (se3.make_pose, (ROTVECS,)),
    "invert": (se3.invert, (T,)),
    "interpolate": (se3.interpolate, (T, T_OTHER, RNG.uniform(size=24))),
    "compose_tcp": (se3.compose_tcp, (T, T_OTHER)),
    "compose_base": (se3.compose_base, (T, T_OTHER)),
    "compose_base_euler": (se3.compose_base_euler, (T, RNG.normal(size=(24, 6)))),
    "relative_tcp": (se3.relative_tcp, (T, T_OTHER)),
    "relative_base": (se3.relative_base, (T, T_OTHER)),
    "relative_base_euler": (se3.relative_base_euler, (T, T_OTHER)),
    "pose_error": (se3.pose_error, (T, T_OTHER)),
    "left_jacobian": (lie.left_jacobian, (ROTVECS,)),
    "left_jacobian_inverse": (lie.left_jacobian_inverse, (ROTVECS,)),
    "exp_se3": (lie.exp_se3, (np.hstack([AXES, ROTVECS]),)),
    "log_se3": (lie.log_se3, (T,)),
    "mean_rotation": (averaging.mean_rotation, (NEAR, WEIGHTS)),
    "mean_pose": (averaging.mean_pose, (T_NEAR, WEIGHTS)),
}


def tensors(arguments: tuple[Any, ...], **kind: Any) -> tuple[Any, ...]:
    return tuple(torch.tensor(value, **kind) for value in arguments)


def public_functions() -> set[str]:
    return {
        name
        for module in (rotations, se3, lie, averaging)
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }


def test_every_function_of_arrays_is_compared() -> None:
    of_one_kind = {"is_pose"}
    building_blocks = {"identity_plus", "power_series", "split_small"}
    assert public_functions() - of_one_kind - building_blocks == CALLS.keys() - {"make_pose_of_positions"}


@pytest.mark.parametrize("name", CALLS)
def test_tensors_give_the_numbers_of_arrays(name: str) -> None:
    function, arguments = CALLS[name]
    result = function(*tensors(arguments))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), function(*arguments), atol=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_leading_dimensions_are_kept(name: str) -> None:
    function, arguments = CALLS[name]

    def folded(value: Any) -> Any:
        return value.reshape(2, 3, 4, *value.shape[1:]) if len(value) == 24 else value

    expected = function(*arguments)
    for kind in (np.asarray, torch.tensor):
        result = np.asarray(function(*(kind(folded(value)) for value in arguments)))
        assert result.shape == (2, 3, 4, *expected.shape[1:])
        np.testing.assert_allclose(result.reshape(expected.shape), expected, atol=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_single_precision_stays_single(name: str) -> None:
    function, arguments = CALLS[name]
    result = function(*tensors(arguments, dtype=torch.float32))
    assert result.dtype == torch.float32
    expected = function(*(np.asarray(value, dtype=np.float32) for value in arguments))
    is_same = np.isclose(result.numpy(), expected, atol=2e-3).reshape(len(expected), -1).all(axis=1)
    # Within rounding of a half turn a rotation vector may point either way.
    assert is_same[: -3 if name in ("matrix_to_rotvec", "log_se3") else None].all()


@pytest.mark.parametrize("name", CALLS)
def test_tensors_stay_on_their_device(name: str) -> None:
    """`meta` is the device that every machine has beside its processor."""
    function, arguments = CALLS[name]
    result = function(*tensors(arguments, device="meta"))
    assert result.device.type == "meta"
    assert result.shape == function(*arguments).shape


@pytest.mark.parametrize("name", CALLS)
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    function, arguments = CALLS[name]
    few = [0, 13] if name.startswith("mean") else [0, 1, *range(13, 21)]  # each of a mean's inputs is five poses
    picked = tuple(value[few] if len(value) == 24 else value for value in arguments)
    assert torch.autograd.gradcheck(function, tensors(picked, requires_grad=True), atol=1e-6)


def from_rotvec(matrix_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of rotations seen through the exponential map, so that differences stay on the manifold."""
    return lambda rotvec: matrix_function(rotations.rotvec_to_matrix(rotvec))


AT = {
    "identity": np.zeros(3),
    "tiny": np.array([1e-12, -1e-12, 0.0]),
    "almost half turn": (np.pi - 1e-4) * AXES[0],
    "quarter turn": np.array([0.5 * np.pi, 0.0, 0.0]),
}
FORMS = {
    "rotvec": rotations.matrix_to_rotvec,
    "quat_xyzw": rotations.matrix_to_quat_xyzw,
    "rpy": rotations.matrix_to_rpy,
    "rot6d": rotations.matrix_to_rot6d,
    "rot6d_rows": rotations.matrix_to_rot6d_rows,
    "slerp": lambda R_a: rotations.slerp(R_a, torch.eye(3, dtype=torch.float64), 0.3),
    "log_se3": lambda R_a: lie.log_se3(se3.make_pose(torch.ones(3, dtype=torch.float64), R_a)),
    "left_jacobian_inverse": lambda R_a: lie.left_jacobian_inverse(rotations.matrix_to_rotvec(R_a)),
    "mean": lambda R_a: averaging.mean_rotation(torch.stack([R_a, R_a, R_a])),
}


@pytest.mark.parametrize("place", AT)
@pytest.mark.parametrize("form", FORMS)
def test_derivatives_hold_at_the_identity_and_near_half_turns(form: str, place: str) -> None:
    rotvec = torch.tensor(AT[place], requires_grad=True)
    assert torch.autograd.gradcheck(from_rotvec(FORMS[form]), (rotvec,), atol=1e-5)


def test_log_undoes_exp_to_first_order_at_the_identity() -> None:
    J = torch.autograd.functional.jacobian(from_rotvec(rotations.matrix_to_rotvec), torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(J.numpy(), np.eye(3), atol=1e-15)


EXACT = {
    "identity": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "half turn": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "gimbal lock": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", EXACT)
@pytest.mark.parametrize("form", [*FORMS, "angle"])
def test_no_derivative_is_infinite_or_none(form: str, place: str, dtype: Any) -> None:
    """Half turns and gimbal lock included, where a derivative doesn't exist and some finite number stands for it."""
    R_a = torch.tensor(EXACT[place], dtype=dtype, requires_grad=True)
    unit = torch.eye(3, dtype=dtype)
    function = {
        **FORMS,
        "slerp": lambda R_a: rotations.slerp(R_a, unit, 0.3),
        "log_se3": lambda R_a: lie.log_se3(se3.make_pose(unit[0], R_a)),
        "angle": lambda R_a: rotations.angle_between(R_a, unit),
    }[form]
    result = function(R_a)
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert torch.isfinite(R_a.grad).all()


def test_angle_of_equal_rotations_has_no_slope() -> None:
    R_a = torch.eye(3, dtype=torch.float64, requires_grad=True)
    rotations.angle_between(R_a, torch.eye(3, dtype=torch.float64)).backward()
    np.testing.assert_array_equal(R_a.grad.numpy(), np.zeros((3, 3)))


@pytest.mark.parametrize("rot6d", [np.zeros(6), [1.0, 0, 0, 2.0, 0, 0], [1e-3, 0, 0, 0, 1e-3, 0]])
def test_degenerate_rot6d_has_finite_derivatives(rot6d: Any) -> None:
    value = torch.tensor(np.asarray(rot6d, dtype=np.float64), requires_grad=True)
    result = rotations.rot6d_to_matrix(value)
    result.sum().backward()
    assert torch.isfinite(result).all()
    assert torch.isfinite(value.grad).all()


def test_gradient_descent_on_rot6d_finds_the_rotation() -> None:
    target = torch.tensor(rotations.rotvec_to_matrix(np.array([0.0, 3.0, 0.4])))
    rot6d = torch.tensor([1.0, 0, 0, 0, 1.0, 0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([rot6d], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        loss = rotations.angle_between(rotations.rot6d_to_matrix(rot6d), target) ** 2
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1e-6


def test_tensors_can_be_mapped_over() -> None:
    rotvecs = torch.tensor(ROTVECS[:5])
    J = torch.func.vmap(torch.func.jacrev(lambda v: lie.exp_se3(torch.cat([v, v]))))(rotvecs)
    assert J.shape == (5, 4, 4, 3)
    R_mean = torch.func.vmap(averaging.mean_rotation)(torch.tensor(NEAR))
    np.testing.assert_allclose(R_mean.numpy(), averaging.mean_rotation(NEAR), atol=1e-12)


def test_one_tensor_beside_an_array_of_weights() -> None:
    weights = [0.25, 0.75]
    pair = np.stack([R_OTHER[0], NEAR[0, 0]])
    mean = averaging.mean_rotation(torch.tensor(pair), weights)
    np.testing.assert_allclose(mean.numpy(), rotations.slerp(pair[0], pair[1], 0.75), atol=1e-12)


def test_geometry_never_imports_torch() -> None:
    code = "import sys; from vla_ros.geometry import averaging, cameras; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
