"""The real `ros2 run` and `ros2 launch`: every node and launch file of ours comes up, and ends as Ctrl-C asks it to.

The package is where colcon and pip put it: in a prefix of its own. What the two make of a launch file is compared in
test_ros2_launch_parity.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vla_ros.sim.world")

from vla_ros.launching.resolve import parse_assignments, resolve
from vla_ros.nodes.__main__ import EXECUTABLES

ROS2 = shutil.which("ros2")
pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.slow]
needs_ros2 = pytest.mark.skipif(ROS2 is None, reason="`ros2` isn't on the PATH: no ROS distribution here")

CHECKOUT = Path(__file__).parents[2]
# What each needs to be told; those of `motion` are three in one.
NODES = {
    "camera_node": {"rig": "panda_table"},
    "controller_node": {"robot": "panda"},
    "gripper_node": {"robot": "ur5e", "hardware": "mock"},
    "hardware_node": {"robot": "ur5e", "rig": "ur5e_table", "hardware": "mock"},
    "mock_node": {"robot": "fr3", "rig": "fr3_table", "cameras": "false"},
    "motion": {"robot": "panda"},
    "policy_node": {"robot": "panda", "rig": "panda_table", "policy": "scripted_visual"},
    "recorder_node": {"robot": "panda", "rig": "panda_table"},
    "safety_node": {"robot": "panda"},
    "sim_node": {"robot": "panda", "rig": "panda_table", "cameras": "false"},
    "teleop_node": {"robot": "panda", "rig": "panda_table", "device": "pose"},
    "tf_node": {"robot": "panda"},
}
# All of launch/ but what includes or starts a driver's own; the last two start nothing, since the driver runs already.
FILES = {
    "bringup": [["robot:=panda", "task:=reach the red block"], ["robot:=ur5e", "hardware:=mock", "cameras:=false"]],
    "calibration": [["robot:=panda"]],
    "cameras": [["rig:=panda_table"]],
    "control": [["robot:=ur10e"]],
    "hardware_mock": [["robot:=fr3", "rig:=fr3_table", "cameras:=false"]],
    "hardware_real": [["robot:=ur5e", "rig:=ur5e_table", "driver:=none"]],
    "hardware_sim": [["robot:=panda", "rig:=panda_table", "cameras:=false"]],
    "policy": [["robot:=panda", "rig:=panda_table", "policy:=scripted_visual"]],
    "record": [["robot:=panda"]],
    "replay": [["robot:=panda"]],
    "teleop": [["robot:=panda", "device:=pose"]],
    "driver_none": [[]],
    "driver_panda": [[]],
}
DRIVERS = {"driver_fr3", "driver_ur", "driver_ur5e", "driver_ur10e", "camera_realsense", "camera_usb"}


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a workspace with vla_ros installed in it, and this Python as `python3`."""
    prefix = tmp_path_factory.mktemp("install")
    command = [sys.executable, "setup.py", "-q", "install_data", "--install-dir", str(prefix)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, timeout=60)
    before = {
        "AMENT_PREFIX_PATH": str(prefix),
        "PATH": str(Path(sys.executable).parent),
        "PYTHONPATH": str(CHECKOUT),
    }
    known = {"AMENT_PREFIX_PATH": sys.prefix, "PYTHONPATH": "", "PATH": "", **os.environ}
    joined = {key: os.pathsep.join(filter(None, (value, known[key]))) for key, value in before.items()}
    return {**joined, "PYTHONUNBUFFERED": "1"}


class Started:
    """A command in a session of its own, as in a terminal of its own."""

    def __init__(self, words: list[str], folder: Path, environ: dict[str, str]) -> None:
        self._log = folder / "log"
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(
                [str(ROS2), *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **environ},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def interrupt(self) -> int:
        """Ctrl-C, which a terminal sends to all that was started in it; the exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(40)


@pytest.fixture
def start(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts `ros2 ...`; what is left of it at the end is killed."""
    begun: list[Started] = []

    def start(*words: str) -> Started:
        folder = tmp_path / str(len(begun))
        folder.mkdir()
        begun.append(Started(list(words), folder, environ))
        return begun[-1]

    yield start
    for item in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(item.process.pid, signal.SIGKILL)
        item.process.wait()


def names_of(executable: str, name: str | None = None) -> set[str]:
    if executable == "motion":
        return {"motion_loop", "safety_node", "controller_node"}
    return {name or executable}


def await_nodes(wanted: set[str], started: list[Started], peer: Any, patience: Callable[..., Any]) -> None:
    """Waits until all of them are in the graph."""

    def is_there() -> bool:
        for item in started:
            assert item.process.poll() is None, item.text
        return wanted <= {f"{space.rstrip('/')}/{name}" for name, space in peer.node.get_node_names_and_namespaces()}

    patience(is_there, ", ".join(sorted(wanted)), 90.0)


def test_tables_here_are_complete() -> None:
    assert set(NODES) == set(EXECUTABLES)
    assert set(FILES) | DRIVERS == {path.name.removesuffix(".launch.xml") for path in (CHECKOUT / "launch").iterdir()}


@needs_ros2
def test_ros2_finds_the_package_and_its_executables(environ: dict[str, str]) -> None:
    words = [str(ROS2), "pkg", "executables", "vla_ros"]
    done = subprocess.run(words, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split("\n")) - {""} == {f"vla_ros {name}" for name in EXECUTABLES}


@needs_ros2
@pytest.mark.lengthy
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_ros2_run_starts_each_node(part: int, start: Any, make_peer: Any, patience: Any, tmp_path: Path) -> None:
    """Four at a time, each in a namespace of its own."""
    nodes = dict(list(NODES.items())[part::3])
    started = []
    for name, parameters in nodes.items():
        words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
        started.append(start("run", "vla_ros", name, "--ros-args", "-r", f"__ns:=/of_{name}", *words))
    wanted = {f"/of_{name}/{node}" for name in nodes for node in names_of(name)}
    await_nodes(wanted, started, make_peer("watcher"), patience)
    for name, item in zip(nodes, started, strict=True):
        code = item.interrupt()
        assert code == 0, f"{name}: {item.text}"
        assert "Traceback" not in item.text, f"{name}: {item.text}"


@needs_ros2
def test_ros2_run_without_what_a_node_needs_says_what_it_is(start: Any) -> None:
    node = start("run", "vla_ros", "motion")
    assert node.process.wait(60) == 2
    assert "parameter 'robot' is not set" in node.text


@needs_ros2
@pytest.mark.lengthy
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "words"),
    [pytest.param(name, words, id=" ".join([name, *words])) for name, all_of in FILES.items() for words in all_of],
)
def test_ros2_launch_starts_each_file(
    name: str, words: list[str], start: Any, make_peer: Any, patience: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = resolve(CHECKOUT / "launch" / f"{name}.launch.xml", parse_assignments(words))
    launch = start("launch", "vla_ros", f"{name}.launch.xml", *words)
    if not graph.nodes:
        assert launch.process.wait(60) == 0, launch.text
        return
    wanted = {f"/{node}" for item in graph.nodes for node in names_of(item.executable, item.name)}
    await_nodes(wanted, [launch], make_peer("watcher"), patience)
    code = launch.interrupt()
    assert "Traceback" not in launch.text, launch.text
    assert "process has died" not in launch.text, launch.text
    assert launch.text.count("process has finished cleanly") == len(graph.nodes), launch.text
    assert code == 0, launch.text
