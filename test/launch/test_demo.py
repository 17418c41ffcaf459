"""`vla-ros demo`: one episode through the whole stack, and the folder that tells of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")
av = pytest.importorskip("av")

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]

TASK = "reach the red block"


@pytest.fixture(scope="module")
def demo(module_domain: int, module_processes, tmp_path_factory) -> tuple[Any, Path]:
    """A demo that is over, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    module_processes.close()
    process = module_processes.start_command(
        *("demo", "--robot", "panda", "--policy", "scripted_visual", "--task", TASK),
        *("--episodes", "1", "--seed", "4", "--json", "--out", str(out)),
    )
    process.wait(110)
    return process, out


@pytest.fixture
def summary(demo) -> dict[str, Any]:
    process, _ = demo
    assert process.returncode == 0, process.text
    return dict(json.loads(process.text.splitlines()[-1]))


def test_episode_succeeds_within_all_limits(summary) -> None:
    assert (summary["successes"], summary["episodes"], summary["seeds"]) == (1, 1, [4])
    assert (summary["robot"], summary["task"], summary["policy"]) == ("panda", TASK, "scripted_visual")
    assert summary["limit_violations"] == 0
    assert sum(summary["violations"].values()) == 0
    assert summary["per_episode"][0]["outcome"] == "success"


def test_figures_are_there_and_make_sense(summary) -> None:
    for quantity in ("velocity", "acceleration", "jerk"):
        assert 0.0 < summary[f"peak_{quantity}_fraction"] <= 1.0
    # 250 Hz, less the ticks that a busy machine catches up with and doesn't send.
    assert 100.0 < summary["control_rate_hz"] <= 250.1
    assert set(summary["camera_rate_hz"]) == {"base", "wrist"}
    assert all(8.0 < rate_hz < 25.0 for rate_hz in summary["camera_rate_hz"].values())
    assert 0.0 < summary["chunk_to_command_ms"]["p50"] <= summary["chunk_to_command_ms"]["p99"]
    assert summary["per_episode"][0]["path_length_m"] > 0.1
    assert summary["per_episode"][0]["ticks"] > 250


def test_summary_file_says_what_was_printed(demo, summary) -> None:
    assert json.loads((demo[1] / "summary.json").read_text()) == summary


def test_video_decodes_and_shows_the_episode(demo, summary) -> None:
    with av.open(str(demo[1] / "episode-0004.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    # Ten a second of the episode, less what was not drawn in time.
    assert len(frames) > 3.0 * summary["per_episode"][0]["time_s"]
    assert np.abs(frames[-1].astype(int) - frames[0].astype(int)).max() > 50
    assert frames[0].std() > 10.0


def test_table_has_the_motion_and_the_plot_is_a_picture(demo) -> None:
    with (demo[1] / "episode-0004.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 250
    assert any("panda_joint1" in name for name in rows[0])
    plot = cv2.imread(str(demo[1] / "episode-0004.png"))
    assert plot is not None
    assert min(plot.shape[:2]) > 200
    assert plot.std() > 5.0


def test_logs_of_all_nodes_are_kept_and_none_failed(demo) -> None:
    logs = {path.stem: path.read_text() for path in (demo[1] / "logs").glob("*.log")}
    assert {"motion", "policy_node"} <= set(logs)
    assert not any("Traceback" in text for text in logs.values())


@pytest.mark.lengthy
@pytest.mark.parametrize("robot", ["fr3", "ur5e"])
def test_episodes_before_a_mocked_driver_are_reset_and_judged_like_those_of_the_simulator(
    robot: str, processes, tmp_path
) -> None:
    pytest.importorskip("ur_dashboard_msgs")
    process = processes.start_command(
        *("demo", "--robot", robot, "--hardware", "mock", "--policy", "scripted_visual", "--task", TASK),
        *("--episodes", "2", "--seed", "4", "--json", "--out", str(tmp_path)),
    )
    process.wait(110)
    assert process.returncode == 0, process.text
    done = json.loads(process.text.splitlines()[-1])
    assert (done["hardware"], done["successes"], done["seeds"]) == ("mock", 2, [4, 5])
    assert done["limit_violations"] == 0


def test_without_a_word_the_small_vla_shows_what_it_can(processes, tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")
    process = processes.start_command("demo", "--json", "--out", str(tmp_path))
    process.wait(110)
    done = json.loads(process.text.splitlines()[-1])
    assert (done["policy"], done["episodes"]) == ("flow_vla", 1)
    assert (process.returncode, done["successes"]) == (0, 1)
    assert done["limit_violations"] == 0
