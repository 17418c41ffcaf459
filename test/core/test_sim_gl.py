"""The choice of an OpenGL backend, and what happens on a machine without one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

import pytest

from vla_ros.sim import gl

WITHOUT_GL = """
from vla_ros.contract import load_rig
from vla_ros.errors import MissingDependencyError
from vla_ros.robots.config import load_robot
from vla_ros.sim.cameras import CameraRenderer
from vla_ros.sim.world import World
world = World(load_robot("panda"), load_rig("panda_table"), 0)
world.step(5)
try:
    CameraRenderer(world.scene)
except MissingDependencyError as error:
    print(f"{world.time_s:.3f}", error)
"""

# llvmpipe's threads bear its name.
DRAWING = """
from pathlib import Path
from vla_ros.contract import load_rig
from vla_ros.robots.config import load_robot
from vla_ros.sim.cameras import CameraRenderer
from vla_ros.sim.world import World
world = World(load_robot("panda"), load_rig("panda_table"), 0, "varied")
with CameraRenderer(world.scene) as renderer:
    renderer.render(world.snapshot())
    print(*{path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")})
"""


def pretend_installed(monkeypatch: pytest.MonkeyPatch, libraries: Iterable[str], has_gpu: bool = False) -> None:
    monkeypatch.setattr(gl, "_loads", lambda names: any(name in libraries for name in names))
    monkeypatch.setattr(gl, "_has_gpu", lambda: has_gpu)
    monkeypatch.setenv("MUJOCO_GL", "")  # So that monkeypatch restores what choose_backend sets.


@pytest.mark.parametrize(
    ("libraries", "has_gpu", "backend"),
    [
        (("libEGL.so.1", "libEGL_mesa.so.0", "libOSMesa.so.8"), False, "osmesa"),
        (("libEGL.so.1", "libEGL_nvidia.so.0", "libOSMesa.so.8"), True, "egl"),
        (("libEGL.so.1", "libEGL_mesa.so.0"), False, "egl"),
        (("libEGL.so.1",), True, "disable"),
        ((), False, "disable"),
    ],
)
def test_best_backend_that_loads_is_chosen(
    monkeypatch: pytest.MonkeyPatch, libraries: tuple[str, ...], has_gpu: bool, backend: str
) -> None:
    pretend_installed(monkeypatch, libraries, has_gpu)
    assert gl.choose_backend() == backend == os.environ["MUJOCO_GL"]


def test_choice_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, ("libOSMesa.so.8",))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert gl.choose_backend() == "egl"


def test_library_that_is_not_there_is_not_loaded() -> None:
    assert not gl._loads(("libnot_there_at_all.so.7",))
    assert gl._loads(("libnot_there_at_all.so.7", "libc.so.6"))


def test_without_gl_physics_runs_and_cameras_name_the_package_to_install() -> None:
    pytest.importorskip("vla_ros.sim.world")
    environment = {**os.environ, "MUJOCO_GL": "disable", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GL], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.010 ")
    assert "sudo apt-get install libosmesa6" in done.stdout


@pytest.mark.skipif(not {"osmesa", "egl"} & set(gl.available_backends()), reason="no OpenGL to draw with")
def test_software_draws_in_no_threads_of_its_own() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("LP_NUM_THREADS", "MUJOCO_GL")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", DRAWING], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "llvmpipe" not in done.stdout
