"""Who may import whom, and what no module of vla_ros may hold. The rules are docs/design.md, section 1.

Everything is read from the sources (`ast`), so nothing is imported and imports inside functions count too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "vla_ros"
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = frozenset({"errors", "types", "files", "stopping", "config", "contract", "instruction"})

# What each folder (or module) of vla_ros may import besides itself. A new one gets a line here.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "types": frozenset({"errors"}),
    "files": frozenset(),
    "stopping": frozenset(),
    "config": frozenset({"errors"}),
    "contract": frozenset({"errors", "types", "config"}),
    "instruction": frozenset({"errors", "types"}),
    "geometry": frozenset({"errors", "types"}),
    "robots": frozenset({"errors", "types", "config", "geometry"}),
    "observation": FOUNDATION | {"geometry", "robots"},
    "actions": FOUNDATION | {"geometry"},
    "policies": FOUNDATION | {"geometry", "observation", "actions"},
    "safety": FOUNDATION | {"geometry", "robots", "actions"},
    "control": FOUNDATION | {"geometry", "robots"},
    "sim": FOUNDATION | {"geometry", "robots"},
    "hardware": FOUNDATION | {"geometry", "robots", "sim"},
    "recording": FOUNDATION | {"geometry", "robots", "observation", "actions"},
    "teleop": FOUNDATION | {"geometry", "actions"},
    "calibration": FOUNDATION | {"geometry", "robots"},
    "launching": frozenset({"errors", "config"}),
    "training": FOUNDATION | {"geometry", "robots", "observation", "actions", "policies", "recording"},
}
MAY_IMPORT_ALL_BUT_NODES = frozenset({"evaluation", "generation", "benchmarks", "commands", "cli"})
MAY_IMPORT_NODES_IN_FUNCTIONS = frozenset({"benchmarks", "commands"})
MAY_PRINT = frozenset({"commands", "cli"})
# Module below vla_ros -> why it prints all the same.
PRINTING_MODULES = {"launching.output": "shows in the terminal what the nodes print"}

ROS_MODULE = re.compile(
    r"(rclpy|tf2_\w+|cv_bridge|std_srvs|ament_index_\w+|rosidl_\w+|rpyutils|\w+_msgs|\w+_interfaces)$"
)

MAX_LINES = 300
# Path below vla_ros/ -> why it is better in one piece.
LONG_MODULES: dict[str, str] = {}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute and dotted, as `vla_ros.geometry.se3`."""

    target: str
    line: int
    is_lazy: bool


def find_imports(source: str, module: tuple[str, ...]) -> Iterator[Import]:
    """The imports in a source.

    Args:
        source: Python code.
        module: the module's own dotted name, in parts; an `__init__` keeps that part, so that relative imports resolve.
    """

    def visit(node: ast.AST, is_lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, is_lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = ".".join(module[: -node.level]) if node.level else ""
            origin = ".".join(part for part in (parent, node.module) if part)
            yield from (Import(f"{origin}.{alias.name}", node.lineno, is_lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and _called_name(node) in ("import_module", "__import__"):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from (Import(str(name), node.lineno, is_lazy) for name in names)
        is_lazy = is_lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_lazy)

    yield from visit(ast.parse(source), False)


def _called_name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def layer_problems(source: str, module: tuple[str, ...]) -> list[str]:
    """Imports from a part of vla_ros that this module's part may not know."""
    layer = module[1]
    if layer in ("__init__", "__main__", "nodes"):
        allowed = None if layer == "nodes" else frozenset({"cli"})
    elif layer in MAY_IMPORT_ALL_BUT_NODES:
        allowed = MAY_IMPORT.keys() | MAY_IMPORT_ALL_BUT_NODES
    elif layer in MAY_IMPORT:
        allowed = MAY_IMPORT[layer]
    else:
        return [f"vla_ros/{layer} has no line in MAY_IMPORT; say there what it may import"]
    known = MAY_IMPORT.keys() | MAY_IMPORT_ALL_BUT_NODES | {"nodes"}
    problems = []
    for found in find_imports(source, module):
        parts = found.target.split(".")
        if allowed is None or parts[0] != "vla_ros" or len(parts) < 2 or parts[1] not in known - {layer}:
            continue
        is_excused = found.is_lazy and parts[1] == "nodes" and layer in MAY_IMPORT_NODES_IN_FUNCTIONS
        if parts[1] not in allowed and not is_excused:
            problems.append(f"line {found.line}: vla_ros.{layer} may not import {found.target}")
    return problems


def ros_problems(source: str, module: tuple[str, ...]) -> list[str]:
    """Imports of ROS outside of vla_ros.nodes."""
    if module[1] == "nodes":
        return []
    return [
        f"line {found.line}: only vla_ros.nodes may import {found.target}"
        for found in find_imports(source, module)
        if ROS_MODULE.match(found.target.split(".")[0])
    ]


def habit_problems(source: str, module: tuple[str, ...]) -> list[str]:
    """Printing where no person is at the keyboard, and `assert`, which `python -O` removes."""
    may_print = module[1] in MAY_PRINT or ".".join(module[1:]) in PRINTING_MODULES
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            problems.append(f"line {node.lineno}: assert; raise an error that says how to mend it")
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and not may_print:
            problems.append(f"line {node.lineno}: print; return it, raise it or log it")
    return problems


def dotted(path: Path) -> tuple[str, ...]:
    return ("vla_ros", *path.relative_to(PACKAGE).with_suffix("").parts)


def name_below_package(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_below_package)
@pytest.mark.parametrize("rule", [layer_problems, ros_problems, habit_problems])
def test_module_keeps_the_rule(rule, path):
    assert rule(path.read_text(encoding="utf-8"), dotted(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=name_below_package)
def test_module_is_short_or_has_a_reason(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    is_listed = name_below_package(path) in LONG_MODULES
    assert (lines > MAX_LINES) == is_listed, f"{lines} lines, limit {MAX_LINES}: split it, or mend LONG_MODULES"


def test_long_modules_exist():
    assert {path for path in LONG_MODULES if not (PACKAGE / path).is_file()} == set()


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (layer_problems, "geometry.se3", "import vla_ros.robots.model"),
        (layer_problems, "policies.scripted", "from vla_ros.safety import limits"),
        (layer_problems, "policies.scripted", "from vla_ros import safety"),
        (layer_problems, "control.ik", "from ..actions.timeline import ChunkTimeline"),
        (layer_problems, "control.__init__", "from ..actions import timeline"),
        (layer_problems, "cli", "import vla_ros.nodes.motion"),
        (layer_problems, "evaluation.rollout", "def run():\n    from vla_ros.nodes import motion"),
        (layer_problems, "commands.demo", "from vla_ros.nodes.motion import main"),
        (layer_problems, "sim.world", "importlib.import_module('vla_ros.control.ik')"),
        (layer_problems, "brand_new.thing", ""),
        (ros_problems, "sim.world", "import rclpy"),
        (ros_problems, "launching.graph", "def f():\n    from ament_index_python import get_packages"),
        (ros_problems, "cli", "from sensor_msgs.msg import Image"),
        (ros_problems, "robots.model", "if TYPE_CHECKING:\n    import tf2_ros"),
        (habit_problems, "sim.world", "def f():\n    print('hello')"),
        (habit_problems, "cli", "assert True"),
    ],
)
def test_rules_find_what_they_forbid(rule, module, source):
    assert len(rule(source, ("vla_ros", *module.split(".")))) == 1


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [
        (layer_problems, "geometry.se3", "from . import rotations\nfrom vla_ros.types import FloatArray"),
        (layer_problems, "nodes.motion", "from vla_ros.control import ik\nfrom vla_ros.safety import limits"),
        (layer_problems, "commands.demo", "def f():\n    from vla_ros.nodes.motion import main"),
        (layer_problems, "safety.limits", "from vla_ros import __version__"),
        (ros_problems, "nodes.tf_node", "from tf2_msgs.msg import TFMessage"),
        (habit_problems, "cli", "print('hello')"),
    ],
)
def test_rules_allow_what_they_should(rule, module, source):
    assert rule(source, ("vla_ros", *module.split("."))) == []
