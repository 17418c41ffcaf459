"""`vla-ros replay` and `vla-ros episodes view` without ROS: what they tell, their exit codes, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
pytest.importorskip("matplotlib")

import vla_ros.commands.replay.episodes as episodes
from vla_ros.cli import main


@pytest.fixture
def recorded(synthetic_episode, monkeypatch) -> Any:
    """The episode that every bag is."""
    episode = synthetic_episode()
    monkeypatch.setattr(episodes, "read_bag", lambda *_arguments: episode)
    return episode


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


def test_dry_run_tells_way_time_and_distance(recorded, capsys) -> None:
    assert main(["replay", "7", "--json"]) == 0
    values = told(capsys)
    positions = recorded.tool_targets.values[:, :3, 3]
    assert values["path_length_m"] == pytest.approx(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    assert (values["moved"], values["completed"], values["limits"]) == ("nothing", True, {})
    assert (values["targets"], values["recorded_s"], values["space"]) == (1001, pytest.approx(4.0), "tool")
    # It begins at home, where the arm is in a dry run.
    assert values["start_distance_m"] == pytest.approx(0.0, abs=1e-6)
    assert values["path_error_mm"] < 0.1
    # The path, a second to take up and give up the pace, and the quiet ways between.
    assert 6.0 < values["duration_s"] < 8.0


def test_dry_run_at_twice_the_pace_is_shorter(recorded, capsys) -> None:
    durations = []
    for speed in ("1", "2"):
        main(["replay", "7", "--json", "--speed", speed])
        durations.append(told(capsys)["duration_s"])
    assert durations[0] - durations[1] == pytest.approx(2.0, abs=0.01)


def test_another_arm_repeats_the_tools_way(recorded, capsys) -> None:
    assert main(["replay", "7", "--json", "--robot", "ur5e"]) == 0
    values = told(capsys)
    assert (values["robot"], values["start_distance_rad"]) == ("ur5e", None)
    assert values["path_error_mm"] < 0.1


def test_episode_out_of_the_workspace_is_told_with_the_limit(synthetic_episode, monkeypatch, capsys) -> None:
    from vla_ros.recording.recorded import TargetSeries

    whole = synthetic_episode()
    T = whole.tool_targets.values.copy()
    T[:, 2, 3] -= 0.36  # 2 cm above the table at home, and below it.
    low = synthetic_episode(tool_targets=TargetSeries(whole.tool_targets.stamps_ns, T, whole.tool_targets.openings))
    monkeypatch.setattr(episodes, "read_bag", lambda *_arguments: low)
    main(["replay", "7", "--json"])
    values = told(capsys)
    assert "workspace" in values["limits"]
    assert values["path_error_mm"] == pytest.approx(1e3 * (0.005 - T[:, 2, 3].min()), abs=2.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "true"], "say --in arm"),
        (["--open-loop"], "go together"),
        (["--policy", "scripted_visual"], "go together"),
        (["--open-loop", "--policy", "scripted_visual", "--in", "sim"], "moves nothing"),
        (["--open-loop", "--policy", "scripted_visual", "--from", "hdf5:x"], "needs what a bag has"),
        (["--from", "lerobot"], "write FORMAT:DIR"),
        (["--from", "lerobut:x"], "did you mean 'lerobot'"),
        (["--speed", "0"], "speed 0 isn't in"),
        (["--robot", "pandora"], "unknown robot|no such|pandora"),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(recorded, words, message, capsys) -> None:
    assert main(["replay", "7", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert any(part in said for part in message.split("|"))


def test_page_is_written_where_it_is_asked_for(recorded, tmp_path, capsys) -> None:
    assert main(["episodes", "view", "7", "--out", str(tmp_path / "page"), "--json"]) == 0
    values = told(capsys)
    assert values["page"] == str(tmp_path / "page" / "index.html")
    assert (tmp_path / "page" / "index.html").is_file()
    assert (values["outcome"], values["interventions"]) == ("success", 1)


def test_open_loop_writes_figures_and_a_plot(recorded, tmp_path, capsys) -> None:
    words = ["replay", "7", "--open-loop", "--policy", "scripted_visual", "--out", str(tmp_path / "out"), "--json"]
    # Where the pictures have red, the policy sees a block.
    assert main(words) == 0
    values = told(capsys)
    assert json.loads((tmp_path / "out" / "open_loop.json").read_text()) == values
    assert values["observations"] + values["idle_answers"] + values["unseen"]["count"] >= 20
    assert len(values["mean_abs_error"]["x_m"]) == len(values["horizon_s"])
    assert (tmp_path / "out" / "open_loop.png").stat().st_size > 10_000
