"""`vla-ros calibrate camera --images` from pictures to a rig that bringup reads, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_camera import BoardCamera, look_at

from vla_ros import cli
from vla_ros.calibration.boards import parse_board
from vla_ros.config import package_share
from vla_ros.contract import load_rig
from vla_ros.types import CameraModel

BOARD = parse_board("charuco:7x5:35:26")
CAMERA = CameraModel(
    320, 240, np.array([[300.0, 0.0, 163.0], [0.0, 298.0, 117.0], [0.0, 0.0, 1.0]]), (-0.2, 0.05, 0.0, 0.0)
)
PLACES = [(x, y) for y in (-0.11, 0.0, 0.11) for x in (-0.15, 0.0, 0.15)]
TILTS = [(0.45, 0.0), (-0.45, 0.0), (0.0, 0.45), (0.0, -0.45), (0.35, 0.35)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen pictures, the last near, two of which are of no use."""
    path: Path = tmp_path_factory.mktemp("pictures")
    artist, rng = BoardCamera(CAMERA, samples=2), np.random.default_rng(4)
    shown = [((x, y, 0.55), TILTS[number % 5]) for number, (x, y) in enumerate(PLACES)]
    shown += [((0.0, 0.0, 0.33), (0.1, 0.2)), ((0.01, 0.0, 0.4), (-0.6, 0.1)), ((0.0, 0.01, 0.4), (0.1, 0.6))]
    for number, (where, tilt) in enumerate(shown):
        image = artist.take(BOARD, look_at(BOARD, np.array(where), np.array(tilt), 0.05), rng)
        cv2.imwrite(str(path / f"{number:02d}.png"), image[:, :, ::-1])
    cv2.imwrite(str(path / "90_empty.png"), np.full((240, 320, 3), 110, dtype=np.uint8))
    again = artist.take(BOARD, look_at(BOARD, np.array(shown[0][0]), np.array(shown[0][1]), 0.05), rng)
    cv2.imwrite(str(path / "91_again.png"), again[:, :, ::-1])
    return path


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    path = tmp_path / "cell.yaml"
    path.write_text((package_share() / "config" / "rigs" / "panda_table.yaml").read_text())
    return path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict, str]:
    code = cli.main(["calibrate", *words])
    told = capsys.readouterr()
    lines = told.out.strip().splitlines()
    return code, json.loads(lines[-1]) if "--json" in words and lines else {}, told.err


def test_pictures_become_a_rig_with_intrinsics(folder: Path, rig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rig.read_text()
    code, found, told = call(
        capsys, "camera", "--rig", str(rig), "--camera", "wrist", "--images", str(folder), "--json"
    )
    assert code == 0, (found, told)
    assert found["is_good"]
    assert "90_empty.png: no board is seen" in told
    assert "91_again.png: the same as 00.png" in told
    assert rig.read_text() == before
    (written,) = found["written"]
    new = load_rig(written["file"]).cameras["wrist"]
    assert new.K is not None
    # Twelve small pictures of 320x240 know the focal length to about a part in two hundred.
    np.testing.assert_allclose(new.K, CAMERA.K.flatten(), rtol=0.01, atol=2.5)
    assert new.distortion[0] == pytest.approx(-0.2, abs=0.03)
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
        (["--camera", "front", "--images", "EMPTY"], "did you mean"),
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
    assert "64x48, the rig says 320x240" in told


def test_board_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = call(capsys, "board", "--out", str(tmp_path / "b.pdf"), "--json")
    assert code == 0
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF-")
    assert found["width_mm"] == pytest.approx(265.0, abs=0.1)
    assert call(capsys, "board", "--out", str(tmp_path / "b.svg"))[0] == 2
