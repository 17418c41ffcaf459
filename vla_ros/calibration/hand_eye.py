"""A camera's mount from poses in which the arm stood still: what is missing, residuals, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.calibration.verdict import CalibrateError, Check, at_most
from vla_ros.geometry import rotations, se3
from vla_ros.geometry.averaging import mean_pose, mean_rotation
from vla_ros.geometry.hand_eye import HandEyeCalibration, Setup, calibrate_hand_eye
from vla_ros.robots.model import RobotModel
from vla_ros.types import FloatArray

MIN_SAMPLES = 12
TURN_DEG = 30.0
"""About two axes of the tool, from one end to the other."""

STILL_S = 0.4
"""How long the arm has to stand still around an exposure."""

_STILL_RAD = 0.001
_NEW_DEG, _NEW_M = 4.0, 0.015
_REFUSED = 5
_MOUNT_MM, _MOUNT_DEG = 3.0, 0.4
_LEFT_OUT_MM, _LEFT_OUT_DEG = 4.0, 0.6


@dataclass(frozen=True)
class HandEyeSample:
    """What was when the arm stood still.

    Attributes:
        stamp_ns: of the image.
        T_base_link: (4, 4) of the link that carries the camera, or the tcp where it carries the board.
        T_cam_board: (4, 4).
        rms_px: by which the board's points miss that pose.
    """

    stamp_ns: int
    T_base_link: FloatArray
    T_cam_board: FloatArray
    rms_px: float


@dataclass(frozen=True)
class Mount:
    """A camera's mount and how well the samples agree with it.

    Attributes:
        T_parent_cam: (4, 4) pose of the optical frame in the mount's parent.
        setup: `eye_in_hand` or `eye_to_hand`.
        fit: mount, board and residuals of all samples.
        left_out_mm: (n,) by which each sample's board is from where the others have it, by a mount made of the others.
        left_out_deg: (n,) likewise, its turn.
        std_mm: of the mount's position, by leaving samples out (jackknife).
        std_deg: of its rotation.
        checks: the verdict.
    """

    T_parent_cam: FloatArray
    setup: Setup
    fit: HandEyeCalibration
    left_out_mm: FloatArray
    left_out_deg: FloatArray
    std_mm: float
    std_deg: float
    checks: tuple[Check, ...]


def setup_of(model: RobotModel, parent: str) -> Setup:
    """Whether a camera on a link moves with the arm (`eye_in_hand`) or stays.

    Raises:
        ConfigError: for a link that isn't in the URDF.
    """
    elsewhere = np.clip(model.home + 0.1, model.lower, model.upper)
    gap = se3.pose_error(model.link_pose(model.home, parent), model.link_pose(elsewhere, parent))
    return "eye_in_hand" if float(np.abs(gap).max()) > 1e-6 else "eye_to_hand"


def is_still(stamps_ns: Sequence[int], positions: FloatArray, stamp_ns: int, window_s: float = STILL_S) -> bool | None:
    """Whether the arm stood still around an exposure.

    Args:
        stamps_ns: (n,) of joint states, rising.
        positions: (n, joints) rad.
        stamp_ns: the exposure.
        window_s: how long, centred on it.

    Returns:
        None while that isn't known yet, or not any more.
    """
    stamps, half_ns = np.asarray(stamps_ns, dtype=np.int64), round(0.5e9 * window_s)
    if not len(stamps) or stamps[0] > stamp_ns - half_ns or stamps[-1] < stamp_ns + half_ns:
        return None
    first, last = np.searchsorted(stamps, (stamp_ns - half_ns, stamp_ns + half_ns))
    inside = positions[max(0, first - 1) : last + 1]
    return bool(np.ptp(inside, axis=0).max() < _STILL_RAD)


def is_new(sample: HandEyeSample, samples: Sequence[HandEyeSample]) -> bool:
    """Whether the arm stands elsewhere than in all samples before."""
    for other in samples:
        gap = se3.pose_error(other.T_base_link, sample.T_base_link)
        if np.linalg.norm(gap[:3]) < _NEW_M and np.degrees(np.linalg.norm(gap[3:])) < _NEW_DEG:
            return False
    return True


def turns_deg(samples: Sequence[HandEyeSample]) -> FloatArray:
    """(3,) how far the tool was turned about its own x, y and z, from one end to the other, degrees."""
    if len(samples) < 2:
        return np.zeros(3)
    R = np.array([sample.T_base_link[:3, :3] for sample in samples])
    return np.asarray(np.degrees(np.ptp(rotations.matrix_to_rotvec(mean_rotation(R).T @ R), axis=0)))


def missing(samples: Sequence[HandEyeSample], wanted: int = MIN_SAMPLES) -> list[str]:
    """What the arm has to do yet, in words; empty when there is enough."""
    left = []
    if len(samples) < wanted:
        left.append(f"{wanted - len(samples)} more poses")
    turns = turns_deg(samples)
    lacking = [axis for axis in np.argsort(-turns).tolist() if turns[axis] < TURN_DEG]
    # Two axes suffice: the one that is turned about least may stay as it is.
    for axis in lacking[: max(0, len(lacking) - 1)]:
        left.append(f"turns about the tool's {'xyz'[axis]} axis ({turns[axis]:.0f} of {TURN_DEG:g} degrees)")
    return left


def calibrate_mount(samples: Sequence[HandEyeSample], setup: Setup, T_base_parent: FloatArray) -> Mount:
    """Finds a camera's mount.

    Args:
        samples: at least six.
        setup: who carries the camera.
        T_base_parent: (4, 4) of the mount's parent, which `eye_to_hand` needs: there it never moves.

    Raises:
        CalibrateError: for too few samples.
        CalibrationError: for samples that no mount can be had from.
    """
    if len(samples) <= _REFUSED:
        problem = f"{len(samples)} poses (limit {_REFUSED + 1})"
        raise CalibrateError("hand-eye", problem, f"take {MIN_SAMPLES} and more, turned about two axes")
    arm = np.array([sample.T_base_link for sample in samples])
    seen = np.array([sample.T_cam_board for sample in samples])
    fit = calibrate_hand_eye(arm, seen, setup)
    # Of `eye_to_hand` the arm's inverse closes the loop.
    outer = arm if setup == "eye_in_hand" else se3.invert(arm)
    others, gaps = [], np.empty((len(samples), 6))
    for index in range(len(samples)):
        rest = np.arange(len(samples)) != index
        other = calibrate_hand_eye(arm[rest], seen[rest], setup)
        others.append(other.T_mount_cam)
        gaps[index] = se3.pose_error(other.T_target, outer[index] @ other.T_mount_cam @ seen[index])
    mounts = np.array(others)
    away = se3.pose_error(mean_pose(mounts), mounts)
    # Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, eq. 11.5.
    std = np.sqrt((len(samples) - 1) / len(samples) * np.sum(away**2, axis=0))
    T_parent_cam = fit.T_mount_cam if setup == "eye_in_hand" else se3.invert(T_base_parent) @ fit.T_mount_cam
    left_out_mm = 1e3 * np.linalg.norm(gaps[:, :3], axis=1)
    left_out_deg = np.degrees(np.linalg.norm(gaps[:, 3:], axis=1))
    std_mm, std_deg = 1e3 * float(np.linalg.norm(std[:3])), float(np.degrees(np.linalg.norm(std[3:])))
    checks = _checks(samples, left_out_mm, left_out_deg, (std_mm, std_deg))
    return Mount(np.asarray(T_parent_cam), setup, fit, left_out_mm, left_out_deg, std_mm, std_deg, checks)


def _checks(
    samples: Sequence[HandEyeSample], left_out_mm: FloatArray, left_out_deg: FloatArray, std: tuple[float, float]
) -> tuple[Check, ...]:
    left = missing(samples)
    text = f"missing: {'; '.join(left)}" if left else f"{len(samples)} poses, turned enough about two axes"
    rms_mm, rms_deg = (float(np.sqrt(np.mean(values**2))) for values in (left_out_mm, left_out_deg))
    worst = int(np.argmax(left_out_mm))
    mend = f"does the board or its holder move? the worst is pose {worst + 1}; are intrinsics and board size right?"
    return (
        Check("motion", not left, text),
        at_most("left_out_mm", rms_mm, _LEFT_OUT_MM, "board where the other poses have it within", "mm", mend),
        at_most("left_out_deg", rms_deg, _LEFT_OUT_DEG, "its turn within", "deg", mend),
        at_most("mount_std_mm", std[0], _MOUNT_MM, "mount known to", "mm", "more poses, turned further"),
        at_most("mount_std_deg", std[1], _MOUNT_DEG, "its turn known to", "deg", "more poses, the board nearer"),
    )
