"""Checks of Python, of the libraries, of rendering, and of our own files."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from vla_ros.commands.doctor.finding import Check, Finding, one_line
from vla_ros.commands.doctor.probe import PIP, ask
from vla_ros.errors import VlaRosError
from vla_ros.evaluation.versions import installed_version

PYTHONS = ((3, 10), (3, 12))

# Something that can be seen, drawn off screen: a red ball in the middle of the picture.
_RENDER = """
import os
from vla_ros.sim.gl import DISABLED, choose_backend
if choose_backend() == DISABLED:
    raise SystemExit("no OpenGL backend, or MUJOCO_GL=disable")
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom size='.5' rgba='1 0 0 1'/>"
    "<camera name='c' pos='0 -2 0' xyaxes='1 0 0 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data, camera="c")
red, green, blue = (int(value) for value in renderer.render()[16, 16])
renderer.close()
if not red > 40 + max(green, blue):
    raise SystemExit(f"a red ball came out as ({red}, {green}, {blue})")
print(os.environ["MUJOCO_GL"], "drew 32x32 pixels")
"""

_BACKENDS = "from vla_ros.sim.gl import available_backends; print(*available_backends())"
_CODEC = "import av; print('libx264' if 'libx264' in av.codecs_available else '')"
_CUDA = """
import torch
print(torch.cuda.get_device_name() + ", CUDA " + torch.version.cuda if torch.cuda.is_available() else "")
"""


def check_python() -> Finding:
    """Whether this Python is one that everything installs on."""
    lowest, highest = (".".join(map(str, version)) for version in PYTHONS)
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    mend = f"make setup PYTHON=python{highest}"
    return Finding("python", "missing", f"{platform.python_version()}; {lowest} to {highest} are supported", mend)


def library_check(name: str, module: str, distribution: str, needed_for: str = "", is_required: bool = True) -> Check:
    """A check that a library imports.

    Args:
        name: of the finding.
        module: what is imported.
        distribution: what pip installs, where there is a choice.
        needed_for: said when it is missing.
        is_required: whether vla_ros needs it.
    """

    def check_library() -> Finding:
        answer = ask(f"import {module}; print(getattr({module}, '__version__', ''))")
        if answer.is_ok:
            version = answer.text or installed_version(distribution) or "version unknown"
            return Finding(name, "ok", version.splitlines()[-1])
        detail = answer.text + (f" (for {needed_for})" if needed_for else "")
        return Finding(name, "missing" if is_required else "optional", detail, f"{PIP} {distribution}")

    check_library.__name__ = f"check_{name}"
    return check_library


def check_codec() -> Finding:
    """Whether videos can be h264."""
    answer = ask(_CODEC)
    if not answer.is_ok:
        return Finding("codec", "missing", answer.text, f"{PIP} av")
    if answer.text:
        return Finding("codec", "ok", f"h264 by {answer.text}")
    return Finding("codec", "optional", "no libx264, so videos are mpeg4", f"{PIP} --force-reinstall av")


def check_opengl() -> Finding:
    """Which OpenGL backends have their libraries."""
    answer = ask(_BACKENDS)
    if answer.is_ok and answer.text:
        return Finding("opengl", "ok", f"{answer.text} (the first is taken)")
    problem = "neither OSMesa nor EGL loads (for the simulated cameras)" if answer.is_ok else answer.text
    return Finding("opengl", "missing", problem, "sudo apt-get install libosmesa6")


def check_rendering() -> Finding:
    """Whether MuJoCo really draws something without a display."""
    answer = ask(_RENDER)
    if answer.is_ok:
        return Finding("rendering", "ok", answer.text.splitlines()[-1])
    if "No module named 'mujoco'" in answer.text:
        return Finding("rendering", "missing", answer.text, f"{PIP} mujoco")
    mend = "sudo apt-get install libosmesa6; if it is there: unset MUJOCO_GL"
    return Finding("rendering", "missing", answer.text, mend)


def check_cuda() -> Finding:
    """Whether torch finds a GPU."""
    answer = ask(_CUDA)
    if answer.is_ok and answer.text:
        return Finding("cuda", "ok", answer.text)
    if answer.is_ok:
        return Finding("cuda", "optional", "torch finds no GPU", "nvidia-smi (says whether the driver finds one)")
    return Finding("cuda", "optional", "not known without torch", f"{PIP} torch")


def check_share() -> Finding:
    """Whether our launch, URDF and YAML files are where they are looked for."""
    from vla_ros.config import package_share

    share = package_share()
    absent = [folder for folder in ("config", "launch", "urdf") if not (share / folder).is_dir()]
    if absent:
        return Finding("share", "missing", f"no {', '.join(absent)} in {share}", "install with pip or colcon")
    return Finding("share", "ok", str(share))


def check_configs() -> Finding:
    """Whether every YAML of ours can be read."""
    from vla_ros.config import config_names, load, package_share
    from vla_ros.contract import load_contract, load_rig
    from vla_ros.control.config import ControllerConfig
    from vla_ros.policies.registry import load_policy_config
    from vla_ros.robots.config import load_robot
    from vla_ros.safety.config import SafetyConfig

    loaders: dict[str, Callable[[str], Any]] = {
        "robots": load_robot,
        "rigs": load_rig,
        "contracts": load_contract,
        "policies": load_policy_config,
    }
    config = package_share() / "config"
    jobs: list[Callable[[], Any]] = [
        partial(loader, name) for folder, loader in loaders.items() for name in config_names(folder)
    ]
    jobs += [
        partial(load, SafetyConfig, config / "safety.yaml"),
        partial(load, ControllerConfig, config / "controller.yaml"),
    ]
    problems = []
    for job in jobs:
        try:
            job()
        except VlaRosError as error:
            problems.append(one_line(str(error)))
    if problems:
        return Finding("configs", "missing", "; ".join(problems), "mend what they name")
    counts = ", ".join(f"{len(config_names(folder))} {folder}" for folder in loaders)
    return Finding("configs", "ok", f"{counts}, safety and controller load")


PYTHON_CHECKS: tuple[Check, ...] = (
    check_python,
    library_check("numpy", "numpy", "numpy"),
    library_check("scipy", "scipy", "scipy"),
    library_check("yaml", "yaml", "PyYAML"),
    library_check("opencv", "cv2", "opencv-python-headless", "cameras"),
    library_check("pinocchio", "pinocchio", "pin", "kinematics"),
    library_check("ruckig", "ruckig", "ruckig", "smooth joint commands"),
    library_check("xacro", "xacro", "xacro", "robot descriptions"),
    library_check("mujoco", "mujoco", "mujoco", "the simulator"),
    check_opengl,
    check_rendering,
    library_check("matplotlib", "matplotlib", "matplotlib", "plots"),
    library_check("av", "av", "av", "videos"),
    check_codec,
    library_check("torch", "torch", "torch", "learned policies", is_required=False),
    check_cuda,
    check_share,
    check_configs,
)
