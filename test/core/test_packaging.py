"""What is installed, and where, so that pip, colcon, `ros2 run` and `ros2 launch` find it."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vla_ros
from vla_ros.nodes.__main__ import EXECUTABLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
BESIDE_ROS = ROOT / "scripts" / "beside_ros.txt"
PACKAGE_XML = ElementTree.parse(ROOT / "package.xml").getroot()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """A prefix into which setup.py has put its data files, as pip and colcon have it do."""
    folder = tmp_path_factory.mktemp("prefix")
    command = [sys.executable, "setup.py", "-q", "install_data", "--install-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    return folder


def test_share_holds_every_file_of_the_source_folders(prefix):
    share = prefix / "share" / "vla_ros"
    installed = {path.relative_to(share) for path in share.rglob("*") if path.is_file()}
    folders = [ROOT / name for name in ("config", "launch", "urdf")]
    expected = {path.relative_to(ROOT) for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert installed == expected | {Path("package.xml")}
    assert len(expected) > 5


def test_ament_index_names_the_package(prefix):
    assert (prefix / "share/ament_index/resource_index/packages" / PACKAGE_XML.findtext("name")).is_file()


def test_executables_are_the_nodes(prefix):
    executables = list((prefix / "lib" / "vla_ros").iterdir())
    assert {path.name for path in executables} == set(EXECUTABLES)
    assert all(os.access(path, os.X_OK) and not path.is_symlink() for path in executables)


@pytest.mark.parametrize("node", EXECUTABLES)
def test_executable_has_its_module(node):
    assert importlib.util.find_spec(f"vla_ros.nodes.{node}") is not None


def make_reporter(path: Path) -> None:
    """A program in the place of python3 that prints its own path, pid and arguments."""
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$$" "$@"\n')
    path.chmod(0o755)


@pytest.mark.parametrize("is_in_prefix", [True, False], ids=["its own python", "the python on the path"])
def test_executable_becomes_python_with_its_arguments(prefix, tmp_path, is_in_prefix):
    shutil.copytree(prefix / "lib", tmp_path / "lib")
    folder = tmp_path / ("bin" if is_in_prefix else "elsewhere")
    make_reporter(folder / "python3")
    path = os.environ["PATH"] if is_in_prefix else f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = [str(tmp_path / "lib/vla_ros/motion"), "--ros-args", "-p", "a:=with space"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PATH": path})
    python, pid, *arguments = process.communicate(timeout=10)[0].splitlines()
    assert Path(python).resolve() == folder / "python3"
    assert int(pid) == process.pid
    assert arguments == ["-m", "vla_ros.nodes", "motion", "--ros-args", "-p", "a:=with space"]


def test_package_xml_is_what_colcon_takes_for_an_ament_python_package():
    assert PACKAGE_XML.get("format") == "3"
    assert PACKAGE_XML.findtext("export/build_type") == "ament_python"
    # catkin_pkg refuses a file with a malformed address, and colcon then treats the folder as plain Python.
    address = PACKAGE_XML.find("maintainer").get("email")
    assert re.fullmatch(
        r"[-a-zA-Z0-9_%+]+(\.[-a-zA-Z0-9_%+]+)*@[-a-zA-Z0-9%]+(\.[-a-zA-Z0-9%]+)*\.[a-zA-Z]{2,}", address
    )


def test_package_has_one_name_and_one_version():
    command = [sys.executable, "setup.py", "-q", "--name", "--version"]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.split()[-2:] == [PROJECT["name"], vla_ros.__version__]
    assert PACKAGE_XML.findtext("name") == PROJECT["name"]
    assert PACKAGE_XML.findtext("version") == vla_ros.__version__
    assert vla_ros.__version__ in (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")


# They come with the driver that speaks them, or from interfaces/; only what that arm needs imports them.
DRIVERS_MESSAGES = {"franka_msgs", "ur_dashboard_msgs", "ur_msgs"}


def test_package_xml_names_every_ros_package_that_the_nodes_import():
    """rosdep installs by package.xml alone, so a missing name is an ImportError on somebody else's machine."""
    imported = set()
    for path in (ROOT / "vla_ros" / "nodes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.split(".")[0] for name in names}
    ros = {
        name for name in imported if name in ("rclpy", "tf2_ros", "std_srvs") or name.endswith(("_msgs", "_interfaces"))
    }
    declared = {element.text for tag in ("depend", "exec_depend") for element in PACKAGE_XML.iter(tag)}
    assert ros - declared == DRIVERS_MESSAGES


DEPENDENCIES = {
    element.text
    for tag in ("depend", "exec_depend", "test_depend")
    for element in PACKAGE_XML.iter(tag)
    if element.text
}
# The names of rosdep, and of pip, for what Ubuntu 22.04 already has as we need it.
ROSDEP_NAMES = {
    "pinocchio": "pin",
    "python3-packaging": "packaging",
    "python3-pytest-timeout": "pytest-timeout",
    "xacro": "xacro",
}


def test_rosdep_has_a_key_for_every_dependency():
    """By what was recorded of its database; one that it lacks ends `rosdep install` without anything installed."""
    recorded = yaml.safe_load((ROOT / "test/data/rosdep_keys.yaml").read_text(encoding="utf-8"))
    assert {*recorded["ros"], *recorded["ubuntu"]} == DEPENDENCIES
    assert all(recorded["ubuntu"].values())
    assert set(recorded["distributions"]) >= {"humble", "jazzy", "kilted", "lyrical"}


def test_pip_gives_what_rosdep_cannot():
    """All that a launched stack needs comes from one or the other, but for `ros`: the distribution is that."""
    beside = [Requirement(line) for line in BESIDE_ROS.read_text().splitlines() if not line.startswith("#")]
    given = {canonicalize_name(requirement.name): requirement for requirement in beside}
    assert set(ROSDEP_NAMES) <= DEPENDENCIES
    extras = PROJECT["optional-dependencies"]
    needed = [
        Requirement(text)
        for text in PROJECT["dependencies"] + [t for e in ("sim", "data", "run", "test") for t in extras[e]]
    ]
    names = {canonicalize_name(requirement.name): requirement for requirement in needed}
    assert set(given) == set(names) - set(ROSDEP_NAMES.values())
    for name, requirement in given.items():
        # As new as pip would take for the package; older than something where a comment in the file says so.
        assert str(names[name].specifier) in str(requirement.specifier).split(","), name


@pytest.mark.parametrize("module", ["vla_ros", "vla_ros.cli", "vla_ros.policies.registry"])
def test_import_needs_neither_torch_nor_ros(module):
    code = f"import sys, {module}; print(*[name for name in ('torch', 'rclpy', 'mujoco') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split() == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("constraints/*.txt")), ids=lambda path: path.stem)
def test_constraints_pin_every_direct_dependency_within_its_range(path):
    pins = dict(line.split("==") for line in path.read_text().splitlines() if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    for text in PROJECT["dependencies"] + [
        text
        for name in ("ros", "sim", "data", "view", "dev", "bench", "learn", "remote", "train")
        for text in extras[name]
    ]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text
    assert pins["torch"] == "2.13.0"


def test_make_test_installs_every_extra_that_tests_need():
    """Not `view`, which nothing uses yet; and torch for the tests only, since it is larger than all the rest."""
    installed = re.findall(r"'\.\[([a-z,]+)\]'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {extra for extras in installed for extra in extras.split(",")} == {
        "ros",
        "sim",
        "data",
        "dev",
        "bench",
        "learn",
        "remote",
        "run",
        "train",
    }


def test_constraints_exist_for_every_python_we_promise():
    promised = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)}
    assert {path.stem.removeprefix("python") for path in ROOT.glob("constraints/*.txt")} == promised


@pytest.fixture
def build_backend(monkeypatch):
    """The build backend of interfaces/, which no package holds."""
    spec = importlib.util.spec_from_file_location("build_backend", ROOT / "interfaces/build_backend.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_interfaces_without_a_compiler_names_the_mend(build_backend, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match=r"apt-get install g\+\+"):
        build_backend.build_wheel(str(tmp_path))


def test_interfaces_without_python_headers_names_the_mend(build_backend, monkeypatch, tmp_path):
    (tmp_path / "g++").write_text("")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SystemExit, match=r"apt-get install python3\.\d+-dev"):
        build_backend.build_wheel(str(tmp_path))


def test_interfaces_are_found_with_what_they_nest(build_backend):
    packages = {package.name: package for package in build_backend.find_packages()}
    assert {"tf2_msgs", "control_msgs", "controller_manager_msgs", "franka_msgs", "ur_msgs"} <= set(packages)
    for package in packages.values():
        root = ElementTree.parse(package.folder / "package.xml").getroot()
        assert root.findtext("name") == package.name
        text = "".join((package.folder / path).read_text() for path in package.definitions)
        nested = set(re.findall(r"^(\w+)/\w+", text, re.MULTILINE)) - {package.name}
        assert nested <= set(package.depends)
