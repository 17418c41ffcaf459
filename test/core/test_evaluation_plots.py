"""The picture of an episode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from vla_ros.evaluation import plots
from vla_ros.evaluation.episode_log import EpisodeLog, EpisodeRecorder
from vla_ros.robots.config import load_robot
from vla_ros.robots.model import RobotModel


@pytest.fixture(scope="module")
def model() -> RobotModel:
    return RobotModel.from_config(load_robot("panda"))


def moving(model: RobotModel, fraction: float, states: tuple[str, ...] = ("idle", "running")) -> EpisodeLog:
    """Joints that swing at a fraction of their velocity limits, with the states one after the other."""
    recorder = EpisodeRecorder("pick up the red block", 3, model.names, 10**18)
    for i, state in enumerate(states):
        recorder.add_verdict(10**18 + i * 10**9, state)
    for i in range(0, 250 * len(states), 5):
        t, omega = 0.004 * i, 2.0
        q = model.home + fraction * model.velocity / omega * np.sin(omega * t)
        recorder.add_command(10**18 + 4_000_000 * i, q, fraction * model.velocity * np.cos(omega * t))
    return recorder.finish("success", 2.0)


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, "not an image"
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def pixels_of(image: np.ndarray, colour: str) -> int:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    # Lines that fall between pixels are a little lighter.
    return int(np.count_nonzero((np.abs(image.astype(int) - rgb) <= 12).all(axis=2)))


def test_picture_shows_all_joints_limits_and_states(model: RobotModel, tmp_path: Path) -> None:
    plots.plot_joints(moving(model, 0.6, ("idle", "running", "holding")), model, tmp_path / "out" / "joints.png")
    image = picture(tmp_path / "out" / "joints.png")
    assert image.shape[0] > 800
    assert image.shape[1] > 1000
    for colour in (*plots.JOINT_COLOURS[: len(model.names)], plots._LIMIT_COLOUR):
        assert pixels_of(image, colour) > 100, colour
    # Each state has a third of three panels.
    for state in ("idle", "holding"):
        assert pixels_of(image, plots.STATE_COLOURS[state]) > 30_000, state
    assert pixels_of(image, plots.STATE_COLOURS["fault"]) < 1000
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["joints.png"]


@pytest.mark.parametrize(("peak", "reach"), [(1.5, 2.0), (15.0, 20.0), (35.0, 40.0), (37.0, 112.0), (300.0, 336.0)])
def test_panel_shows_the_peak_and_small_ones_larger(peak: float, reach: float) -> None:
    assert plots._reach(peak) == pytest.approx(reach)


def test_values_far_past_their_limits_and_no_verdicts_can_be_drawn(model: RobotModel, tmp_path: Path) -> None:
    plots.plot_joints(moving(model, 3.0, ("",)), model, tmp_path / "joints.png")
    assert pixels_of(picture(tmp_path / "joints.png"), plots._LIMIT_COLOUR) > 100


def test_a_single_command_can_be_drawn(model: RobotModel, tmp_path: Path) -> None:
    recorder = EpisodeRecorder("pick up the red block", 3, model.names, 0)
    recorder.add_command(0, model.home, np.zeros(7))
    plots.plot_joints(recorder.finish("failure", 1.0), model, tmp_path / "joints.png")
    assert picture(tmp_path / "joints.png").size


def test_importing_plots_does_not_import_matplotlib() -> None:
    code = "import sys, vla_ros.evaluation.plots; sys.exit('matplotlib' in sys.modules)"
    root = Path(plots.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
