"""A workspace with this package in it: `colcon build`, `colcon test`, and what they install, where colcon is installed.

pip install colcon-common-extensions colcon-ros
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vla_ros import __version__
from vla_ros.nodes.__main__ import EXECUTABLES

MISSING = [name for name in ("colcon_core", "colcon_ros", "colcon_bash") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} can't be imported by {sys.executable}"),
    pytest.mark.slow,
]

CHECKOUT = Path(__file__).parents[2]


def run(workspace: Path, *words: str) -> str:
    """Runs a command in a workspace; what it prints."""
    done = subprocess.run(words, cwd=workspace, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def colcon(workspace: Path, *words: str) -> str:
    return run(workspace, sys.executable, "-m", "colcon", *words)


def installed(workspace: Path, command: str) -> str:
    """Runs a command after `source install/setup.bash`, elsewhere."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = f"PATH={path}; source {workspace}/install/setup.bash; cd /; {command}"
    return run(workspace, "bash", "-c", script).strip()


@pytest.fixture(scope="module", params=["copied", "--symlink-install"])
def workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with all that a clone has, built."""
    workspace = tmp_path_factory.mktemp("workspace")
    for name in run(CHECKOUT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        target = workspace / "src" / "vla_ros" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target, follow_symlinks=False)
    colcon(workspace, "build", *([request.param] if request.param.startswith("--") else []))
    return workspace


def test_colcon_takes_it_for_a_ros_package_and_no_other(workspace: Path) -> None:
    """Of the packages in interfaces/, which a distribution has, it sees none."""
    assert [line.split("\t")[::2] for line in colcon(workspace, "list").splitlines()] == [
        ["vla_ros", "(ros.ament_python)"]
    ]


def test_workspace_has_nodes_command_and_share(workspace: Path) -> None:
    prefix = workspace / "install" / "vla_ros"
    assert installed(workspace, "echo $AMENT_PREFIX_PATH").split(os.pathsep)[0] == str(prefix)
    programs = list((prefix / "lib" / "vla_ros").iterdir())
    assert {path.name for path in programs} == set(EXECUTABLES)
    assert all(os.access(path, os.X_OK) for path in programs)
    for folder in ("config", "launch", "urdf"):
        found = {
            path.relative_to(prefix / "share" / "vla_ros") for path in (prefix / "share/vla_ros" / folder).rglob("*")
        }
        assert found == {path.relative_to(CHECKOUT) for path in (CHECKOUT / folder).rglob("*")}
    assert (prefix / "share/ament_index/resource_index/packages/vla_ros").is_file()
    assert installed(workspace, "vla-ros --version") == f"vla-ros {__version__}"
    where = installed(workspace, f"{sys.executable} -c 'import vla_ros; print(vla_ros.__file__)'")
    assert Path(where).is_relative_to(workspace)


def test_installed_node_is_found_by_its_python(workspace: Path) -> None:
    """It refuses in its own words, so it has been imported."""
    program = workspace / "install/vla_ros/lib/vla_ros/no_such_node"
    program.symlink_to(program.with_name("motion"))
    said = installed(workspace, f"{program} 2>&1 || true")
    program.unlink()
    assert "NAME is one of: camera_node" in said


def test_colcon_test_runs_pytest(workspace: Path) -> None:
    colcon(workspace, "test", "--pytest-args", "test/core/test_se3.py")
    assert "17 tests, 0 errors, 0 failures" in colcon(workspace, "test-result", "--verbose")
