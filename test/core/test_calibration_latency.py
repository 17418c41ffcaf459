"""Latencies of made-up records whose delay is known, and how much pictures of a known motion move."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vla_ros.calibration.boards import draw_board, parse_board
from vla_ros.calibration.latency import arm_latency, camera_latency
from vla_ros.calibration.picture_motion import board_motion, flow_motion
from vla_ros.calibration.verdict import CalibrateError, is_good
from vla_ros.types import FloatArray, ImageArray

BOARD = parse_board("charuco:7x5:35:26")


def way(times_s: FloatArray) -> FloatArray:
    """(n,) a motion without a period, m or rad."""
    return np.asarray(0.03 * np.sin(2.1 * times_s) + 0.02 * np.sin(3.7 * times_s + 0.5))


def joints(times_s: FloatArray) -> FloatArray:
    """(n, 3), the last of which stands."""
    return np.column_stack((way(times_s), -0.5 * way(times_s + 0.3), np.full(len(times_s), 0.7)))


@pytest.mark.parametrize("latency_s", [0.0, 0.0437, 0.1612])
def test_arm_latency_is_found_to_a_fraction_of_a_sample(latency_s: float) -> None:
    rng = np.random.default_rng(0)
    commands_s = np.arange(0.0, 15.0, 0.004)
    # Joint states at 125 Hz, jittered, off by a constant each joint, with an encoder's noise.
    states_s = np.sort(np.arange(0.3, 14.5, 0.008) + rng.uniform(-0.001, 0.001, 1775))
    states = joints(states_s - latency_s) + np.array([0.002, -0.003, 0.001]) + rng.normal(scale=1e-4, size=(1775, 3))
    found = arm_latency(commands_s, joints(commands_s), states_s, states)
    # An eighth of a sample.
    assert found.latency_s == pytest.approx(latency_s, abs=0.001)
    assert is_good(found.checks)
    assert found.explained > 0.99


def test_a_servo_that_lags_behind_its_speed_is_as_late_as_its_time_constant() -> None:
    # q' = (command - q) / T follows slow motions by T later (first order: its phase is -omega T).
    step_s, constant_s = 0.001, 0.05
    times_s = np.arange(0.0, 15.0, step_s)
    command = way(times_s)
    q = np.empty_like(command)
    q[0] = command[0]
    for index in range(1, len(q)):
        q[index] = q[index - 1] + step_s * (command[index - 1] - q[index - 1]) / constant_s
    found = arm_latency(times_s, command[:, None], times_s, q[:, None])
    assert found.latency_s == pytest.approx(constant_s, abs=0.003)


@pytest.mark.parametrize("latency_s", [0.0831, 0.25, -0.04])
@pytest.mark.parametrize("rate_hz", [10.0, 30.0])
def test_camera_latency_is_found_at_any_rate_of_images(latency_s: float, rate_hz: float) -> None:
    rng = np.random.default_rng(1)
    states_s = np.arange(0.0, 18.0, 0.004)
    positions = np.column_stack((np.full(len(states_s), 0.5), way(states_s), np.full(len(states_s), 0.3)))
    exposures_s = np.arange(1.2, 16.5, 1.0 / rate_hz)
    exposures_s = exposures_s + rng.uniform(-0.003, 0.003, len(exposures_s))
    # 400 px a metre, a floor of noise in the flow, and a tenth of it.
    moved = 400.0 * np.abs(np.diff(way(exposures_s)))
    moved = 0.2 + moved * (1.0 + 0.1 * rng.normal(size=len(moved)))
    found = camera_latency(exposures_s + latency_s, moved, states_s, positions)
    assert found.latency_s == pytest.approx(latency_s, abs=0.005)
    assert abs(found.latency_s - latency_s) < 4.0 * found.std_s + 0.001
    assert is_good(found.checks), [check.text for check in found.checks]


def test_a_picture_that_shows_another_motion_is_no_good_verdict() -> None:
    states_s = np.arange(0.0, 18.0, 0.004)
    positions = np.column_stack((way(states_s), np.zeros((len(states_s), 2))))
    stamps_s = np.arange(1.2, 16.5, 0.05)
    noise = np.abs(np.random.default_rng(2).normal(size=len(stamps_s) - 1))
    found = camera_latency(stamps_s, noise, states_s, positions)
    assert {check.name for check in found.checks if not check.is_good} >= {"motion_seen"}


def test_an_arm_that_stands_tells_nothing() -> None:
    times_s = np.arange(0.0, 10.0, 0.004)
    still = np.zeros((len(times_s), 2))
    with pytest.raises(CalibrateError, match="did the arm move"):
        arm_latency(times_s, still, times_s, still)
    with pytest.raises(CalibrateError, match="did the arm move"):
        camera_latency(times_s[::10], np.zeros(249), times_s, np.zeros((len(times_s), 3)))


def test_clocks_that_differ_are_named() -> None:
    times_s = np.arange(0.0, 10.0, 0.004)
    with pytest.raises(CalibrateError, match="one clock"):
        arm_latency(times_s, joints(times_s), times_s + 1000.0, joints(times_s))


def shifted(image: ImageArray, ways_px: list[float]) -> list[ImageArray]:
    """A part of a picture that goes to the right by so much from each to the next."""
    places = np.cumsum([0.0, *ways_px])
    found = []
    for place in places:
        M = np.array([[1.0, 0.0, place], [0.0, 1.0, 0.0]])
        found.append(cv2.warpAffine(image, M, (160, 120), borderValue=128))
    return found


def test_flow_is_as_large_as_the_motion() -> None:
    rng = np.random.default_rng(3)
    picture = np.full((120, 160), 128, dtype=np.uint8)
    patch = cv2.GaussianBlur(rng.uniform(0, 255, (50, 50)).astype(np.uint8), (0, 0), 2.0)
    picture[35:85, 20:70] = cv2.normalize(patch, None, 0, 255, cv2.NORM_MINMAX)
    ways = [0.0, 1.0, 2.0, 4.0, 6.0, 3.0, 0.5]
    found = flow_motion(shifted(picture, ways))
    assert found[1:-1] == pytest.approx(ways[1:-1], rel=0.3)
    assert found[0] < 0.1


def test_a_boards_motion_is_in_pixels_and_unknown_where_it_is_hidden() -> None:
    board = np.pad(cv2.resize(draw_board(BOARD, 40), (280, 200)), 60, constant_values=255)
    images = [np.roll(board, place, axis=1) for place in (0, 3, 10)]
    images.append(np.full_like(board, 255))
    found = board_motion(images, BOARD)
    assert found[:2] == pytest.approx([3.0, 7.0], abs=0.1)
    assert np.isnan(found[2])
