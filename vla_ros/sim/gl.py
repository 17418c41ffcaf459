"""Which OpenGL backend draws the simulator's cameras. Imports no mujoco, which reads MUJOCO_GL when it is imported."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from vla_ros.errors import ConfigError

INSTALL_COMMAND = "sudo apt-get install libosmesa6"
DISABLED = "disable"
# What MuJoCo takes on Linux; at any other its import fails.
_KNOWN = frozenset(
    ["disable", "disabled", "off", "false", "0", "enable", "enabled", "on", "true", "1", "glfw", "glx", "egl", "osmesa"]
)

# One library of each group has to load. libEGL.so.1 alone is only glvnd's dispatcher and draws nothing.
_LIBRARIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "egl": (("libEGL.so.1",), ("libEGL_nvidia.so.0", "libEGL_mesa.so.0")),
    "osmesa": (("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),),
}
_GPU_NODES = ("/dev/nvidia0", "/dev/dri/renderD128")


def available_backends() -> tuple[str, ...]:
    """The headless backends whose libraries load on this machine, best first: `egl` leads where a GPU can be opened.

    Without a GPU both draw in software, and OSMesa needs one package and no driver.
    """
    order = ("egl", "osmesa") if _has_gpu() else ("osmesa", "egl")
    return tuple(name for name in order if all(_loads(group) for group in _LIBRARIES[name]))


def choose_backend() -> str:
    """Sets MUJOCO_GL, where the user hasn't, to the best available backend, and to `disable` where there is none.

    With `disable` physics runs and cameras refuse. Software rendering is told to draw in the thread that asks for it,
    which is as fast on images of this size. With threads of its own it corrupts the heap, seldom and without a word
    (Mesa's llvmpipe, 22.3 and newer): it looks without a lock whether they have drawn a scene, and frees that lock
    while a thread that was interrupted still holds it.

    Returns:
        The value of MUJOCO_GL in force.

    Raises:
        ConfigError: for a MUJOCO_GL that MuJoCo doesn't know.
    """
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = next(iter(available_backends()), DISABLED)
    backend = os.environ["MUJOCO_GL"]
    if backend.lower().strip() not in _KNOWN:
        raise ConfigError(
            "environment variable MUJOCO_GL",
            f"MuJoCo has no OpenGL backend {backend!r}",
            "unset it, or choose egl, osmesa, glfw or disable",
        )
    return backend


def _has_gpu() -> bool:
    return any(Path(node).exists() and os.access(node, os.R_OK | os.W_OK) for node in _GPU_NODES)


def _loads(names: Iterable[str]) -> bool:
    """Whether one of the libraries loads. No driver is started for that, so a broken one can't end the process here."""
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
