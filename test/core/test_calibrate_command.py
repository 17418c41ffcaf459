"""`vla-ros calibrate camera --images` from pictures to a rig that bringup reads, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from board_camera import SHOWN, BoardCamera, look_at

from vla_ros import cli
from vla_ros.calibration.boards import parse_board
from vla_ros.config import package_share
from vla_ros.contract import load_rig
from vla_ros.types import CameraModel

BOARD = parse_board("charuco:7x5:35:26")
CAMERA = CameraModel(
    480, 360, np.array([[452.0, 0.0, 244.0], [0.0, 449.0, 176.0], [0.0, 0.0, 1.0]]), (-0.2, 0.05, 0.0, 0.0)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen pictures, two of which are of no use."""
    path: Path = tmp_path_factory.mktemp("pictures")
    artist, rng = BoardCamera(CAMERA, samples=2), np.random.default_rng(4)
    for number, (where, tilt) in enumerate(SHOWN):
        image = artist.take(BOARD, look_at(BOARD, np.array(where), np.array(tilt), 0.05), rng)
        cv2.imwrite(str(path / f"{number:02d}.png"), image[:, :, ::-1])
    cv2.imwrite(str(path / "90_empty.png"), np.full((360, 480, 3), 110, dtype=np.uint8))
    again = artist.take(BOARD, look_at(BOARD, np.array(SHOWN[0][0]), np.array(SHOWN[0][1]), 0.05), rng)
    cv2.imwrite(str(path / "91_again.png"), again[:, :, ::-1])
    return path


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    path = tmp_path / "cell.yaml"
    text = (package_share() / "config" / "rigs" / "panda_table.yaml").read_text()
    path.write_text(text.replace("width: 320", "width: 480").replace("height: 240", "height: 360"))
    return path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, str]:
    code = cli.main(["calibrate", *words])
    told = capsys.readouterr()
    lines = told.out.strip().splitlines()
    return code, json.loads(lines[-1]) if "--json" in words and lines else {}, told.err


def test_pictures_become_a_rig_with_intrinsics(folder: Path, rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rig.read_text()
    info = rig.with_name("wrist_info.yaml")
    words = ("--rig", str(rig), "--camera", "wrist", "--images", str(folder), "--camera-info", str(info))
    code, found, told = call(capsys, "camera", *words, "--json")
    assert code == 0, (found, told)
    assert found["is_good"]
    assert "90_empty.png: no board is seen" in told
    assert "91_again.png: the same as 00.png" in told
    assert rig.read_text() == before
    (written,) = found["written"]
    new = load_rig(written["file"]).cameras["wrist"]
    assert new.K is not None
    # Thirteen small pictures know the focal length to some parts in a thousand.
    np.testing.assert_allclose(new.K, CAMERA.K.flatten(), rtol=0.01, atol=2.5)
    assert new.distortion[0] == pytest.approx(-0.2, abs=0.03)
    # As ROS's camera_calibration_parsers has it: what they both say of one ray is one pixel.
    driver = yaml.safe_load(info.read_text())
    assert (driver["image_width"], driver["image_height"], driver["camera_name"]) == (480, 360, "wrist")
    np.testing.assert_allclose(driver["camera_matrix"]["data"], new.K, atol=1e-3)
    np.testing.assert_allclose(driver["projection_matrix"]["data"][:3], new.K[:3], atol=1e-3)
    assert driver["distortion_model"] == "plumb_bob"
    assert driver["distortion_coefficients"]["cols"] == len(driver["distortion_coefficients"]["data"]) == 5
    # The other camera, and all words about them, are as they were.
    assert load_rig(written["file"]).cameras["base"] == load_rig(str(rig)).cameras["base"]
    assert [
        line for line in Path(written["file"]).read_text().splitlines() if line in before.splitlines()
    ] == before.splitlines()


def test_a_bad_verdict_writes_nothing(
    folder: Path, rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(7):
        (few / f"{number}.png").write_bytes((folder / f"{number:02d}.png").read_bytes())
    code, found, _ = call(capsys, "camera", "--rig", str(rig), "--camera", "wrist", "--images", str(few), "--json")
    assert code == 1
    assert not found["is_good"]
    assert found["written"] == []
    assert "3 more views" in next(check["text"] for check in found["checks"] if check["name"] == "coverage")
    assert list(tmp_path.glob("*.calibrated.yaml")) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--camera", "wrist", "--images", "EMPTY"], "no images"),
        (["--images", "EMPTY"], "name one with --camera"),
        (["--camera", "front", "--images", "EMPTY"], "known: base, wrist"),
        (["--camera", "wrist", "--images", "EMPTY", "--write", "--out", "x.yaml"], "one of them"),
    ],
)
def test_what_can_t_be_done_is_refused_with_the_mend(
    words: list[str], expected: str, rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, told = call(capsys, "camera", "--rig", str(rig), *[str(empty) if w == "EMPTY" else w for w in words])
    assert code == 2
    assert expected in told


def test_images_of_another_size_are_refused(rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), dtype=np.uint8))
    code, _, told = call(capsys, "camera", "--rig", str(rig), "--camera", "wrist", "--images", str(tmp_path))
    assert code == 2
    assert "64x48, the rig says 480x360" in told


def test_board_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = call(capsys, "board", "--out", str(tmp_path / "b.pdf"), "--json")
    assert code == 0
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF-")
    assert found["width_mm"] == pytest.approx(265.0, abs=0.1)
    assert call(capsys, "board", "--out", str(tmp_path / "b.svg"))[0] == 2
