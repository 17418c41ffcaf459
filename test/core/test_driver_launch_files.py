"""launch/driver_*.launch.xml and config/controllers against what drivers' sources say (data/driver_arguments.yaml)."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_ros.config import package_share
from vla_ros.errors import ConfigError, MissingDependencyError, VlaRosError
from vla_ros.hardware.controllers import UR, UR_ACTIVE
from vla_ros.launching.elements import Element, read_launch_file
from vla_ros.launching.resolve import find_launch_file, resolve
from vla_ros.robots.config import load_robot

LAUNCH = package_share() / "launch"
CONTROLLERS = package_share() / "config" / "controllers"
RECORDED: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parents[1] / "data/driver_arguments.yaml").read_text())
FILES = sorted(path.name for pattern in ("driver_*", "camera_*") for path in LAUNCH.glob(f"{pattern}.launch.xml"))


@dataclass(frozen=True)
class Passed:
    """What one of our files passes to a package's launch file, or to a package's node as parameters."""

    package: str
    values: dict[str, str]


def walk(element: Element) -> Iterator[Element]:
    yield element
    for child in element.children:
        yield from walk(child)


def passed(name: str) -> list[Passed]:
    """By packages that aren't ours and have recorded arguments."""
    elements = list(walk(read_launch_file(LAUNCH / name)))
    shares = [item.attributes["value"] for item in elements if item.attributes.get("name") == "driver_share"]
    found = []
    for item in elements:
        if item.tag == "include" and item.attributes["file"].endswith(".py"):
            assert item.attributes["file"].startswith("$(var driver_share)/"), name
            package = shares[0].removeprefix("$(find-pkg-share ").removesuffix(")")
            found.append(
                Passed(package, {child.attributes["name"]: child.attributes["value"] for child in item.all("arg")})
            )
        elif item.tag == "node" and item.attributes["pkg"] in {entry["driver"] for entry in RECORDED}:
            found.append(
                Passed(
                    item.attributes["pkg"],
                    {child.attributes["name"]: child.attributes["value"] for child in item.all("param")},
                )
            )
    return found


CASES = [
    (name, entry["distribution"], part, entry)
    for name in FILES
    for part in passed(name)
    for entry in RECORDED
    if entry["driver"] == part.package
]


def test_every_driver_is_recorded_for_the_distributions_it_is_there_for() -> None:
    handled = {(part.package, distribution) for _, distribution, part, _ in CASES}
    assert handled >= {
        *(("franka_bringup", name) for name in ("humble", "jazzy")),
        *(("ur_robot_driver", name) for name in ("humble", "jazzy", "kilted", "lyrical")),
        *(("realsense2_camera", name) for name in ("humble", "jazzy")),
        ("usb_cam", "any"),
    }


@pytest.mark.parametrize(
    ("part", "entry"), [case[2:] for case in CASES], ids=[f"{name}-{where}" for name, where, *_ in CASES]
)
def test_every_argument_that_is_passed_is_one_of_the_drivers(part: Passed, entry: dict[str, Any]) -> None:
    assert part.values.keys() <= entry["arguments"].keys()
    for name, value in part.values.items():
        choices = entry["arguments"][name]
        if choices and "$" not in value:
            assert value in choices


@pytest.mark.parametrize("robot", ["ur5e", "ur10e"])
@pytest.mark.parametrize("entry", [entry for entry in RECORDED if entry["driver"] == "ur_robot_driver"])
def test_ur_types_are_ones_that_the_driver_knows(robot: str, entry: dict[str, Any]) -> None:
    files = list(walk(read_launch_file(LAUNCH / f"driver_{robot}.launch.xml")))
    (wanted,) = [item.attributes["value"] for item in files if item.attributes.get("name") == "ur_type"]
    assert wanted == robot
    assert wanted in entry["arguments"]["ur_type"]


def fake_package(prefix: Path, package: str, *files: str) -> None:
    index = prefix / "share/ament_index/resource_index/packages" / package
    index.parent.mkdir(parents=True, exist_ok=True)
    index.touch()
    for file in files:
        path = prefix / "share" / package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


NEEDED = {
    "fr3": ("franka_bringup", "launch/franka.launch.py"),
    "ur5e": ("ur_robot_driver", "launch/ur_control.launch.py"),
    "ur10e": ("ur_robot_driver", "launch/ur_control.launch.py"),
}


def bringup(prefix: Path, **given: str) -> Any:
    environ = {"AMENT_PREFIX_PATH": str(prefix), "ROS_DISTRO": "jazzy"}
    return resolve(find_launch_file("bringup"), {"hardware": "real", **given}, environ)


@pytest.mark.parametrize("robot", NEEDED)
def test_driver_that_is_not_installed_is_named(robot: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=NEEDED[robot][0]):
        bringup(tmp_path, robot=robot, robot_ip="10.0.0.1")


@pytest.mark.parametrize("robot", NEEDED)
def test_driver_that_is_installed_is_for_ros2_launch_and_needs_an_address(robot: str, tmp_path: Path) -> None:
    fake_package(tmp_path, *NEEDED[robot])
    fake_package(tmp_path, "ur_description")
    with pytest.raises(MissingDependencyError, match=f"ros2 launch.*{Path(NEEDED[robot][1]).name}"):
        bringup(tmp_path, robot=robot, robot_ip="10.0.0.1")
    with pytest.raises(ConfigError, match="robot_ip_is_missing"):
        bringup(tmp_path, robot=robot)


def test_ur_driver_refuses_a_namespace_which_its_spawners_do_not_follow(tmp_path: Path) -> None:
    fake_package(tmp_path, *NEEDED["ur5e"])
    fake_package(tmp_path, "ur_description")
    with pytest.raises(ConfigError, match="argument 'namespace' is 'left'"):
        bringup(tmp_path, robot="ur5e", robot_ip="10.0.0.1", namespace="left")


@pytest.mark.parametrize("given", [{"robot": "panda"}, {"robot": "ur5e", "driver": "none"}])
def test_arm_whose_driver_runs_already_gets_all_but_a_driver(given: dict[str, str], tmp_path: Path) -> None:
    graph = bringup(tmp_path, **given)
    assert {node.package for node in graph.nodes} == {"vla_ros"}
    values = {node.executable: node.values for node in graph.nodes}
    assert values["gripper_node"]["hardware"] == values["hardware_node"]["hardware"] == "real"
    assert values["motion"]["hardware"] == values["policy_node"]["hardware"] == values["tf_node"]["hardware"] == "real"
    assert "sim_node" not in values


def test_unknown_driver_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VlaRosError, match="driver_nao"):
        bringup(tmp_path, robot="panda", driver="nao")


def controllers(name: str) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((CONTROLLERS / name).read_text())["/**"]
    return {key: value["ros__parameters"] for key, value in content.items()}


def spawned(name: str) -> list[str]:
    """Names of the controllers that a launch file has loaded, not active."""
    nodes = [item for item in walk(read_launch_file(LAUNCH / name)) if item.attributes.get("exec") == "spawner"]
    words = [word for node in nodes for word in node.attributes["args"].split()]
    assert "--inactive" in words
    return words[: words.index("--inactive")]


def test_controllers_of_the_fr3_move_its_joints_and_are_those_it_is_commanded_by() -> None:
    robot, has = load_robot("fr3"), controllers("franka.yaml")
    for name in spawned("driver_fr3.launch.xml"):
        assert tuple(has[name]["joints"]) == robot.joint_names
        assert "type" in has["controller_manager"][name]
    trajectory = has["joint_trajectory_controller"]
    assert set(trajectory["gains"]) == set(robot.joint_names) < set(trajectory["constraints"])
    topics = {robot.command.interface: robot.command.topic, **robot.command.alternatives}
    assert {topics[kind].partition("/")[0] for kind in ("trajectory", "position")} < set(
        spawned("driver_fr3.launch.xml")
    )


def test_controllers_of_a_prefixed_fr3_are_made_as_its_file_says() -> None:
    path = CONTROLLERS / "franka.yaml"
    command = re.search(r"`(sed '.*') franka.yaml", path.read_text())
    assert command is not None
    words = [*shlex.split(command[1]), str(path)]
    made = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    joints = yaml.safe_load(made)["/**"]["joint_trajectory_controller"]["ros__parameters"]["joints"]
    assert tuple(joints) == load_robot("fr3", "left_").joint_names


@pytest.mark.parametrize(
    ("name", "kind"), [("ur.yaml", "interpolate_from_desired_state"), ("ur_humble.yaml", "open_loop_control")]
)
def test_streaming_controller_of_a_ur_goes_on_from_the_last_command(name: str, kind: str) -> None:
    has = controllers(name)
    (controller,) = spawned("driver_ur.launch.xml")
    assert tuple(has[controller]["joints"]) == load_robot("ur5e").joint_names == load_robot("ur10e").joint_names
    assert has[controller][kind] is True
    assert "type" in has[controller]


@pytest.mark.parametrize("name", ["ur5e", "ur10e"])
def test_a_ur_is_streamed_trajectories_by_the_controller_that_comes_with_us(name: str) -> None:
    (controller,) = spawned("driver_ur.launch.xml")
    topic = f"{controller}/joint_trajectory"
    assert load_robot(name).command.using("trajectory").topic == topic
    # The mock has it, too, and there as in the lab it isn't active before hardware_node makes it.
    assert [item.topic for item in UR if item.name == controller] == [topic]
    assert controller not in UR_ACTIVE
