"""What can't be used ends a command with exit code 2 and a last line that names it and the mend; no arm moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from sensor_msgs.msg import JointState

from vla_ros.config import package_share

pytestmark = [pytest.mark.ros, pytest.mark.sim]

SHARE = package_share()

# Command line, and what its only line has to say: refused before anything starts.
REFUSED: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "robot of a launch": (["launch", "bringup", "robot:=pandas"], ("unknown robot 'pandas'", "did you mean 'panda'?")),
    "no robot at all": (["launch", "bringup"], ("robot", "robot:=")),
    "rig of a launch": (
        ["launch", "bringup", "robot:=panda", "rig:=panda_tabel"],
        ("unknown rig 'panda_tabel'", "did you mean 'panda_table'?"),
    ),
    "policy of a launch": (
        ["launch", "bringup", "robot:=panda", "policy:=scripted_visul"],
        ("unknown policy 'scripted_visul'", "did you mean 'scripted_visual'?"),
    ),
    "argument of a launch": (
        ["launch", "bringup", "robt:=panda"],
        ("unknown launch argument 'robt'", "did you mean 'robot'?"),
    ),
    "choice of a launch": (["launch", "bringup", "robot:=panda", "hardware:=rael"], ("hardware", "'rael'", "sim")),
    "launch file": (["launch", "bringip"], ("unknown launch file 'bringip'", "did you mean 'bringup'?")),
    "word of a launch": (["launch", "bringup", "robot=panda"], ("'robot=panda'", "name:=value")),
    "instruction of a launch": (
        ["launch", "bringup", "robot:=panda", "task:=make me a sandwich"],
        ("instruction 'make me a sandwich'", "'make' isn't a verb", "say for example"),
    ),
    "robot of a demo": (["demo", "--robot", "ur5"], ("unknown robot 'ur5'", "did you mean 'ur5e'?")),
    "interface of a demo": (
        ["demo", "--interface", "telepathy"],
        ("'telepathy' isn't one of this robot's", "choose from: position, trajectory"),
    ),
    "rig of a demo": (["demo", "--rig", "table"], ("unknown rig 'table'", "panda_table, ur10e_table, ur5e_table")),
    "policy of a demo": (["demo", "--policy", "openvla7b"], ("unknown policy 'openvla7b'", "known: ")),
    "empty instruction": (["demo", "--task", ""], ("instruction ''", "is empty", "say for example")),
    "blank instruction": (["demo", "--task", " \t"], ("is empty", "say for example")),
    "instruction of a demo": (
        ["demo", "--task", "push the red block"],
        ("instruction 'push the red block'", "no direction", "say for example"),
    ),
    "number of episodes": (["demo", "--episodes", "0"], ("--episodes 0", "at least 1")),
    "seed of a demo": (["demo", "--seed", "-1"], ("--seed -1", "at least 0")),
    "folder of a demo": (["demo", "--out", "/proc/nowhere"], ("--out /proc/nowhere", "choose another")),
}


def assert_unusable(process: Any, words: tuple[str, ...]) -> None:
    assert process.wait(90) == 2, process.text
    assert "Traceback" not in process.text
    last = process.text.splitlines()[-1]
    assert all(word in last for word in words), process.text


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_argument_is_refused_in_one_line(case: str, processes, tmp_path) -> None:
    words, expected = REFUSED[case]
    process = processes.start_command(*words)
    assert_unusable(process, expected)
    assert len(process.text.splitlines()) == 1, process.text


@pytest.mark.parametrize("words", [["demo", "--robto", "panda"], ["dmeo"], ["demo", "--seed", "seven"], []])
def test_command_line_that_is_none_is_refused_with_its_usage(words: list[str], processes) -> None:
    process = processes.start_command(*words)
    assert_unusable(process, (words[1] if len(words) == 2 else "",))
    assert "usage: vla-ros" in process.text


# folder, file, a line of it and the line with a typo, and what is to be said.
TYPOS = {
    "robots": ("panda", "tcp_frame:", "tcp_fram:", ("unknown key 'tcp_fram'", "did you mean 'tcp_frame'?")),
    "rigs": (
        "panda_table",
        "rate_hz: 20.0",
        "rate_hertz: 20.0",
        ("unknown key 'rate_hertz'", "did you mean 'rate_hz'?"),
    ),
    "policies": ("scripted_visual", "rate_hz:", "rate:", ("unknown key 'rate'", "did you mean 'rate_hz'?")),
}


@pytest.mark.parametrize("folder", TYPOS)
def test_typo_in_a_yaml_file_is_named_with_file_and_key(folder: str, processes, tmp_path) -> None:
    name, line, typo, expected = TYPOS[folder]
    text = (SHARE / "config" / folder / f"{name}.yaml").read_text()
    assert line in text
    path = tmp_path / f"{name}.yaml"
    path.write_text(text.replace(line, typo, 1))
    argument = {"robots": "robot", "rigs": "rig", "policies": "policy"}[folder]
    given = {"robot": "panda", "rig": "panda_table", argument: path}
    process = processes.start_command("launch", "bringup", *(f"{key}:={value}" for key, value in given.items()))
    assert_unusable(process, (str(path), *expected))


def test_rig_without_the_camera_of_the_contract_is_refused_by_name(processes, tmp_path) -> None:
    text = (SHARE / "config/rigs/panda_table.yaml").read_text()
    path = tmp_path / "blind.yaml"
    path.write_text(text.replace("\n  base:\n", "\n  front:\n").replace("name: panda_table", "name: blind"))
    process = processes.start_command("launch", "bringup", "robot:=panda", f"rig:={path}")
    assert_unusable(process, ("contract tool_delta_visual", "camera 'base'", "rig blind has ['front', 'wrist']"))


@pytest.fixture
def arm_at_rest(make_peer) -> Callable[[], None]:
    """Listens to the commands of an arm, and asserts that none was another than the first."""
    commands: list[JointState] = make_peer("watcher").hear(JointState, "joint_command")

    def assert_at_rest() -> None:
        positions = [message.position for message in commands]
        assert not positions or np.ptp(positions, axis=0).max() < 1e-6

    return assert_at_rest


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("disable", ("MUJOCO_GL=disable", "OpenGL", "sudo apt-get install libosmesa6")),
        ("vulkan", ("MUJOCO_GL", "no OpenGL backend 'vulkan'", "egl, osmesa, glfw or disable")),
    ],
)
@pytest.mark.parametrize("words", [["launch", "bringup", "robot:=panda", "task:=reach the red block"], ["demo"]])
def test_missing_opengl_is_named_with_its_mend(
    words: list[str], backend: str, expected: tuple[str, ...], processes, arm_at_rest, tmp_path
) -> None:
    words = [*words, "--out", str(tmp_path / "out")] if words == ["demo"] else words
    assert_unusable(processes.start_command(*words, MUJOCO_GL=backend), expected)
    arm_at_rest()


def test_camera_that_cannot_be_read_is_named_with_its_device(processes, arm_at_rest, tmp_path) -> None:
    path = tmp_path / "rig.yaml"
    text = (SHARE / "config/rigs/panda_table.yaml").read_text()
    device = "    source: {kind: device, address: /dev/video_of_nobody}\n"
    path.write_text(text.replace("    rate_hz: 20.0\n", f"    rate_hz: 20.0\n{device}", 1))
    words = ("robot:=panda", f"rig:={path}", "task:=reach the red block")
    expected = ("camera base", "/dev/video_of_nobody can't be opened", "does it exist")
    assert_unusable(processes.start_command("launch", "bringup", *words), expected)
    arm_at_rest()


@pytest.mark.parametrize(
    ("word", "expected"), [("seed:=-1", ("seed", "-1")), ("cameras:=perhaps", ("'cameras'", "'perhaps'"))]
)
def test_value_of_the_wrong_kind_is_named(word: str, expected: tuple[str, ...], processes, arm_at_rest) -> None:
    process = processes.start_command("launch", "bringup", "robot:=panda", "task:=reach the red block", word)
    assert_unusable(process, expected)
    arm_at_rest()


def test_json_tells_which_node_could_not_use_what_it_was_given(processes) -> None:
    process = processes.start_command("launch", "bringup", "robot:=panda", "--json", MUJOCO_GL="disable")
    assert process.wait(90) == 2
    line = next(line for line in reversed(process.text.splitlines()) if line.startswith("{"))
    told = json.loads(line)
    assert told["exit_code"] == 2
    assert told["ended"][0] == {"node": "sim_node", "exit_code": 2}


def test_nothing_is_written_by_a_demo_that_is_refused(processes, tmp_path) -> None:
    out = tmp_path / "out"
    process = processes.start_command("demo", "--task", "dance", "--out", str(out))
    assert_unusable(process, ("'dance'",))
    assert not out.exists()
