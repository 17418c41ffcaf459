"""Boards and intrinsics: drawn boards found again, and a camera of known lens recovered from its pictures of one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_camera import SHOWN, BoardCamera, look_at

from vla_ros.calibration.boards import Board, Sighting, draw_board, find_board, parse_board
from vla_ros.calibration.intrinsics import Intrinsics, calibrate_intrinsics
from vla_ros.calibration.printing import BAR_M, MARGIN_M, write_sheet
from vla_ros.calibration.verdict import CalibrateError, is_good
from vla_ros.calibration.views import View, edge_width_px, look, missing, same_as, spread_deg
from vla_ros.errors import UnknownNameError
from vla_ros.types import CameraModel

BOARD = parse_board("charuco:7x5:35:26")
TAGS = parse_board("apriltag:4x3:60:48")
K = np.array([[455.0, 0.0, 246.0], [0.0, 452.0, 174.0], [0.0, 0.0, 1.0]])
CAMERA = CameraModel(480, 360, K, (-0.25, 0.08, 0.0008, -0.0006))
# What a rig says before: an ideal camera, 10 % off.
GUESS = CameraModel(480, 360, np.array([[500.0, 0.0, 239.5], [0.0, 500.0, 179.5], [0.0, 0.0, 1.0]]))


@pytest.fixture(scope="module")
def artist() -> BoardCamera:
    return BoardCamera(CAMERA, samples=2)


def seen(where: tuple[float, ...], tilt: tuple[float, ...], name: str, noise_px: float = 0.05, seed: int = 0) -> View:
    """A view without a picture: OpenCV's projection of the corners, with noise."""
    T = look_at(BOARD, np.array(where), np.array(tilt), 0.1)
    columns, rows = np.meshgrid(np.arange(1, 7), np.arange(1, 5))
    points = np.column_stack((columns.ravel(), rows.ravel(), np.zeros(24))) * BOARD.square_m
    rvec, _ = cv2.Rodrigues(T[:3, :3])
    pixels, _ = cv2.projectPoints(points, rvec, T[:3, 3], K, np.array(CAMERA.distortion))
    pixels = pixels.reshape(-1, 2) + np.random.default_rng(seed).normal(scale=noise_px, size=(24, 2))
    inside = ((pixels >= 0.0) & (pixels <= [479.0, 359.0])).all(axis=1)
    ids = np.flatnonzero(inside)
    return View(name, Sighting(tuple(ids.tolist()), points[ids], pixels[ids]), 0.9, T)


def guided(noise_px: float = 0.05) -> list[View]:
    return [seen(*shown, f"view {number}", noise_px, number) for number, shown in enumerate(SHOWN)]


def worst_ray_px(found: CameraModel) -> float:
    """The largest gap between true and found camera over the image, as seen at the true camera's pixels.

    Rays of a grid of pixels by the true camera, projected by the found one; OpenCV does both.
    """
    u, v = np.meshgrid(np.linspace(20, 459, 12), np.linspace(20, 339, 9))
    pixels = np.stack((u, v), axis=-1).reshape(-1, 1, 2)
    end = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-9)
    rays = cv2.undistortPoints(pixels, K, np.array(CAMERA.distortion), criteria=end).reshape(-1, 2)
    points = np.column_stack((rays, np.ones(len(rays))))
    lens = np.array(found.distortion) if found.distortion else None
    again, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), found.K, lens)
    return float(np.linalg.norm(again - pixels, axis=-1).max())


def failed(found: Intrinsics) -> set[str]:
    return {check.name for check in found.checks if not check.is_good}


@pytest.mark.parametrize("board", [BOARD, TAGS], ids=["charuco", "apriltag"])
def test_drawn_board_is_found_where_it_was_drawn(board: Board) -> None:
    image = np.pad(draw_board(board, 60), 50, constant_values=255)
    sighting = find_board(board, image)
    assert sighting is not None
    assert len(sighting.ids) == (24 if board is BOARD else 48)
    # Edges between pixels lie half a pixel before the whole numbers; 0.5 px is what subpixel search leaves of a step.
    wanted = sighting.points_m[:, :2] * 60 / board.square_m + 50 - 0.5
    assert np.abs(sighting.pixels - wanted).max() < 0.5


def test_sheet_says_its_scale(tmp_path: Path) -> None:
    width_m, height_m = write_sheet(BOARD, tmp_path / "board.pdf")
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", (tmp_path / "board.pdf").read_bytes())
    assert box is not None
    # A PDF counts points of 1/72 inch.
    assert [float(side) / 72.0 * 0.0254 for side in box.groups()] == pytest.approx([width_m, height_m], abs=1e-6)
    assert width_m == pytest.approx(7 * 0.035 + 2 * MARGIN_M, abs=1e-4)
    write_sheet(BOARD, tmp_path / "board.png")
    image = cv2.imread(str(tmp_path / "board.png"), cv2.IMREAD_GRAYSCALE)
    data = (tmp_path / "board.png").read_bytes()
    at = data.index(b"pHYs") + 4
    per_m = int.from_bytes(data[at : at + 4], "big")
    assert image.shape[1] / per_m == pytest.approx(width_m, abs=1e-4)
    # The printed bar, and the pattern's own width, in that scale.
    bar = image[round((MARGIN_M + 5 * 0.035 + 0.5 * MARGIN_M) * per_m) + 3]
    assert np.count_nonzero(bar < 128) / per_m == pytest.approx(BAR_M, abs=2e-4)
    sighting = find_board(BOARD, cv2.resize(image, None, fx=0.2, fy=0.2, interpolation=cv2.INTER_AREA))
    assert sighting is not None
    side_m = np.linalg.norm(sighting.pixels[1] - sighting.pixels[0]) / (0.2 * per_m)
    assert side_m == pytest.approx(0.035, abs=2e-4)


@pytest.mark.parametrize(
    "text", ["charuco", "charuco:7:35:26", "charuco:7x5:26:35", "charuco:1x5:35:26", "apriltag:40x40:5:4"]
)
def test_what_is_no_board_is_refused(text: str) -> None:
    with pytest.raises(CalibrateError):
        parse_board(text)


def test_unknown_kinds_and_dictionaries_are_named() -> None:
    with pytest.raises(UnknownNameError, match="charuco"):
        parse_board("chess:7x5:35:26")
    with pytest.raises(UnknownNameError, match="DICT_4X4_50"):
        parse_board("charuco:7x5:35:26:DICT_4X4_5")


def test_camera_is_recovered_from_pictures(artist: BoardCamera) -> None:
    rng = np.random.default_rng(1)
    views = []
    for number, (where, tilt) in enumerate(SHOWN):
        view = look(
            BOARD, artist.take(BOARD, look_at(BOARD, np.array(where), np.array(tilt), 0.1), rng), f"{number}", GUESS
        )
        assert isinstance(view, View), view
        views.append(view)
    found = calibrate_intrinsics(views, 480, 360)
    assert is_good(found.checks), [check.text for check in found.checks]
    # Noise of two gray values places a corner to some hundredths of a pixel.
    assert found.rms_px < 0.15
    assert found.left_out_rms_px < 0.2
    np.testing.assert_allclose(found.camera.K, K, rtol=0.01, atol=2.5)
    assert worst_ray_px(found.camera) < 2.0


def test_tags_give_a_pose_in_their_own_units(artist: BoardCamera) -> None:
    T = look_at(TAGS, np.array([0.02, -0.01, 0.5]), np.array([0.3, -0.2]))
    view = look(TAGS, artist.take(TAGS, T, np.random.default_rng(2)), "tags", CAMERA)
    assert isinstance(view, View)
    np.testing.assert_allclose(view.T_cam_board[:3, 3], T[:3, 3], atol=1.5e-3)
    np.testing.assert_allclose(view.T_cam_board[:3, :3], T[:3, :3], atol=0.01)


def test_blur_is_measured_and_refused(artist: BoardCamera) -> None:
    large = parse_board("charuco:5x4:60:45")  # Its markers are still read when they are blurred.
    T = look_at(large, np.array([0.0, 0.0, 0.35]), np.array([0.1, 0.1]))
    sharp = artist.take(large, T, blur_px=0.0)
    sighting = find_board(large, sharp)
    assert sighting is not None
    for sigma_px in (1.5, 2.0):
        blurred = artist.take(large, T, blur_px=sigma_px)
        # Markers' fine edges make it a little less, the pixel's own width a little more.
        assert edge_width_px(blurred, sighting.pixels) == pytest.approx(sigma_px, rel=0.25)
    refusal = look(large, artist.take(large, T, blur_px=3.0), "blurred", CAMERA)
    assert isinstance(refusal, str)
    assert "blurred" in refusal
    assert isinstance(look(large, sharp, "sharp", CAMERA), View)


def test_a_view_that_repeats_another_is_known() -> None:
    views = guided()
    nearly = seen((-0.158, -0.11, 0.55), (0.4, 0.0), "again")
    assert same_as(nearly, views, 480, 360) is views[0]
    assert same_as(seen((-0.06, -0.11, 0.55), (0.4, 0.0), "new"), views, 480, 360) is None
    # Turned on the spot it is a new one.
    assert same_as(seen((-0.16, -0.11, 0.55), (-0.4, 0.4), "turned"), views, 480, 360) is None


def test_guidance_names_what_is_missing_and_nothing_else() -> None:
    assert missing(guided(), 480, 360) == []
    left_half = [view for view, (where, _) in zip(guided(), SHOWN, strict=True) if where[0] < -0.05]
    text = "; ".join(missing(left_half, 480, 360))
    assert "middle right" in text
    assert "upper left" not in text
    assert f"{10 - len(left_half)} more views" in text
    flat = [seen(where, (0.0, 0.0), "flat") for where, _ in SHOWN]
    (text,) = missing(flat, 480, 360)
    assert "tilted" in text
    # A board whose right side is near shows larger squares on the right: the words have to be those.
    right = seen((0.0, 0.0, 0.4), (0.0, 0.5), "right").sighting
    heights = [np.ptp(right.pixels[[i for i, n in enumerate(right.ids) if n % 6 == column], 1]) for column in (0, 5)]
    near = "right" if heights[1] > heights[0] else "left"
    other = {"right": "left", "left": "right"}[near]
    (text,) = missing([*flat, seen((0.0, 0.0, 0.4), (0.0, 0.5), "one")], 480, 360)
    assert near not in text
    assert other in text


def test_too_few_and_parallel_views_are_refused() -> None:
    with pytest.raises(CalibrateError, match="5 good views"):
        calibrate_intrinsics(guided()[:5], 480, 360)
    parallel = [seen(where, (0.2, 0.1), "parallel") for where, _ in SHOWN]
    assert spread_deg(parallel) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(CalibrateError, match="parallel"):
        calibrate_intrinsics(parallel, 480, 360)


def test_lens_has_the_fewest_coefficients_that_do() -> None:
    found = calibrate_intrinsics(guided(0.02), 480, 360)
    assert len(found.camera.distortion) == 4
    # The centre is known worst: a shift of it is a turn of the camera, nearly.
    assert worst_ray_px(found.camera) < 0.8
    without = calibrate_intrinsics(guided(0.02), 480, 360, lens=0)
    assert without.rms_px > 5.0 * found.rms_px
    assert {"rms", "left_out_rms"} <= failed(without)


def test_a_board_that_bent_in_one_view_is_named() -> None:
    views = guided()
    bent = views[4].sighting
    pixels = bent.pixels + 2.5 * np.sin(bent.points_m[:, :1] * 60.0)
    views[4] = replace(views[4], sighting=replace(bent, pixels=pixels))
    found = calibrate_intrinsics(views, 480, 360)
    (check,) = [check for check in found.checks if check.name == "worst_view"]
    assert not check.is_good
    assert "view 4" in check.text


def test_views_that_were_left_out_judge_the_rest() -> None:
    views = guided()
    # Every fourth is left out of the first fit: spoilt, they can't be seen in the fit that judges.
    for index in (3, 7, 11):
        spoilt = views[index].sighting
        shift = np.random.default_rng(index).normal(scale=1.5, size=spoilt.pixels.shape)
        views[index] = replace(views[index], sighting=replace(spoilt, pixels=spoilt.pixels + shift))
    found = calibrate_intrinsics(views, 480, 360, lens=4)
    assert found.left_out == ("view 3", "view 7", "view 11")
    assert "left_out_rms" in failed(found)
