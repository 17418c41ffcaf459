"""PEP 517 backend that turns the folders beside it into ROS interface packages, with the rosidl wheels and a compiler.

A folder is a package: `package.xml`, and definitions in `msg/`, `srv/` and `action/`. The one wheel of all has the
layout of a ROS install: type support libraries in `lib/`, headers in `include/`, definitions and the ament index in
`share/`, and the Python packages with their extensions in site-packages.

Source: the CMake functions `rosidl_generator_*_generate_interfaces` of rosidl, which do the same with colcon.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DISTRIBUTION = "vla_ros_interfaces"
VERSION = "0.2.0"
SUMMARY = "Messages of drivers for machines without a ROS distribution, wire compatible with the originals."
LICENSE = "Apache-2.0"
REQUIREMENTS = (
    "ros-action-msgs~=2.3.0",
    "ros-geometry-msgs~=5.5.1",
    "ros-sensor-msgs~=5.5.1",
    "ros-service-msgs~=2.3.0",
)
KINDS = ("msg", "srv", "action")
# What every package may hold without a word in its package.xml, and what services and actions are made of.
IMPLIED = ("builtin_interfaces", "std_msgs", "service_msgs", "unique_identifier_msgs", "action_msgs")

# Fast DDS serialises with the first and describes types with the second; without it Kilted logs an error per topic.
TYPE_SUPPORTS = ("rosidl_typesupport_fastrtps_c", "rosidl_typesupport_introspection_c")

RUNTIME_LIBRARIES = {
    "rosidl_generator_c": ("rosidl_runtime_c", "rcutils"),
    "rosidl_typesupport_fastrtps_c": (
        "rosidl_typesupport_fastrtps_c",
        "rosidl_typesupport_fastrtps_cpp",
        "rosidl_runtime_c",
        "rmw",
        "fastcdr",
    ),
    "rosidl_typesupport_introspection_c": ("rosidl_typesupport_introspection_c", "rosidl_runtime_c"),
    "rosidl_typesupport_c": ("rosidl_typesupport_c", "rosidl_runtime_c"),
    "rosidl_generator_py": ("rosidl_runtime_c",),
}


@dataclass(frozen=True)
class Package:
    """A ROS package of interfaces.

    Attributes:
        folder: with package.xml and definitions; its name is the package's.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def definitions(self) -> list[Path]:
        """Paths of the definitions in the folder."""
        return sorted(path.relative_to(self.folder) for kind in KINDS for path in self.folder.glob(f"{kind}/*.{kind}"))

    @cached_property
    def depends(self) -> tuple[str, ...]:
        """The packages whose types it nests, in package.xml, and those that are implied."""
        root = ElementTree.parse(self.folder / "package.xml").getroot()
        return tuple(sorted({*IMPLIED, *(element.text or "" for element in root.iter("depend"))}))


def find_packages() -> list[Package]:
    """The packages beside this file."""
    return [Package(path.parent) for path in sorted(ROOT.glob("*/package.xml"))]


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None) -> str:
    """Builds the wheel and returns its file name (PEP 517)."""
    compiler = _find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        build, tree = Path(folder, "build"), Path(folder, "tree")
        prefix = _rosidl_prefix()
        for package in find_packages():
            generated = _generate(package, build / package.name, prefix)
            _install_libraries(package, generated, tree, prefix, compiler)
            _install_python(package, generated, tree, prefix, compiler)
            _install_share(package, generated, tree)
        return _pack(tree, Path(wheel_directory))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object = None) -> str:
    """Writes the metadata alone, so that pip needn't build twice, and returns its folder's name (PEP 517)."""
    info = Path(metadata_directory, f"{DISTRIBUTION}-{VERSION}.dist-info")
    _write_info(info)
    return info.name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Packs the sources and returns the file name (PEP 517)."""
    stem = f"{DISTRIBUTION}-{VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "PKG-INFO")
        info.write_text(_metadata(), encoding="utf-8")
        with tarfile.open(Path(sdist_directory, f"{stem}.tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as archive:
            archive.add(info, f"{stem}/PKG-INFO")
            for name in ("pyproject.toml", "build_backend.py", "README.md"):
                archive.add(ROOT / name, f"{stem}/{name}")
            for package in find_packages():
                for path in (Path("package.xml"), *package.definitions):
                    archive.add(package.folder / path, f"{stem}/{package.name}/{path}")
    return f"{stem}.tar.gz"


def _find_compiler() -> str:
    """The C++ compiler, which takes the C sources too. Ends the build with the mend where there is none."""
    compiler = next(
        (path for path in map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++")) if path), None
    )
    if compiler is None:
        raise SystemExit(f"{DISTRIBUTION}: no C++ compiler found (g++); mend: sudo apt-get install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(
            f"{DISTRIBUTION}: no Python.h for Python {version}; mend: sudo apt-get install python{version}-dev"
        )
    return compiler


def _rosidl_prefix() -> Path:
    """The prefix that holds the rosidl wheels: the environment's, or the one pip makes for an isolated build."""
    import rosidl_adapter

    share = Path("share", "rosidl_adapter")
    return next(folder for folder in Path(rosidl_adapter.__file__).parents if (folder / share).is_dir())


def _generate(package: Package, build: Path, prefix: Path) -> dict[str, Path]:
    """Runs the rosidl generators.

    Returns:
        The folder of each generator's output. They are kept apart because two of them name a file the same.
    """
    os.environ["AMENT_PREFIX_PATH"] = str(prefix)
    from rosidl_adapter.action import convert_action_to_idl
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_adapter.srv import convert_srv_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    definitions = build / "definitions"
    convert = {"msg": convert_msg_to_idl, "srv": convert_srv_to_idl, "action": convert_action_to_idl}
    for path in package.definitions:
        (definitions / path.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(package.folder / path, definitions / path)
        convert[path.parent.name](package.folder, package.name, path, definitions / path.parent)
    interfaces = [f"{definitions}:{path.with_suffix('.idl')}" for path in package.definitions]
    includes = [str(prefix / "share" / name) for name in package.depends]
    descriptions = HashTypeDescription("hash").generate_type_hashes(package.name, interfaces, includes, definitions)

    generators = {
        "rosidl_generator_c": GenerateC("c"),
        "rosidl_generator_py": GeneratePython("py", typesupport_implementations=["rosidl_typesupport_c"]),
        "rosidl_typesupport_c": GenerateCTypesupport("c", typesupport_implementations=list(TYPE_SUPPORTS)),
        "rosidl_typesupport_fastrtps_c": GenerateFastRTPSCTypesupport("fastrtps_c"),
        "rosidl_typesupport_introspection_c": GenerateIntrospectionCTypesupport("introspection_c"),
    }
    folders = {"definitions": definitions}
    for name, generator in generators.items():
        # The generated sources include each other as "<package>/msg/...".
        folders[name] = build / name / package.name
        folders[name].mkdir(parents=True)
        if name != "rosidl_generator_c":
            generator.generate(package.name, interfaces, includes, folders[name])
            continue
        # It tells descriptions apart by their last names alone, of which a message and an action may have the same.
        for kind in KINDS:
            of_kind = [path for path in interfaces if path.partition(":")[2].startswith(f"{kind}/")]
            known = [path for path in descriptions if path.parent.name == kind]
            if of_kind:
                generator.generate(package.name, of_kind, includes, folders[name], known)
    return folders


def _include_options(generated: dict[str, Path], prefix: Path) -> list[str]:
    import numpy

    folders = [folder.parent for name, folder in generated.items() if name != "definitions"]
    folders += [prefix / "include", *sorted(path for path in (prefix / "include").iterdir() if path.is_dir())]
    folders += [Path(sysconfig.get_path("include")), Path(numpy.get_include())]
    return [f"-I{folder}" for folder in folders]


def _link(compiler: str, output: Path, sources: Iterable[Path], options: list[str], libraries: Iterable[str]) -> None:
    """Compiles sources into one shared library. C sources are compiled as C, whatever the driver's own language."""
    with tempfile.TemporaryDirectory() as folder:

        def compile_one(number: int, source: Path) -> str:
            language = ["-x", "c"] if source.suffix == ".c" else ["-x", "c++", "-std=c++17"]
            result = str(Path(folder, f"{number}.o"))
            _run([compiler, *language, "-O1", "-fPIC", "-w", *options, "-c", str(source), "-o", result])
            return result

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            objects = list(threads.map(compile_one, *zip(*enumerate(sources), strict=True)))
        output.parent.mkdir(parents=True, exist_ok=True)
        soname = f"-Wl,-soname,{output.name}"
        links = [f"-l{name}" for name in libraries]
        _run([compiler, "-shared", soname, *objects, *options, *links, "-o", str(output)])


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{DISTRIBUTION}: {command[0]} failed to make {command[-1]}\n{result.stderr}")


def _install_libraries(package: Package, generated: dict[str, Path], tree: Path, prefix: Path, compiler: str) -> None:
    """Puts the type support libraries and headers into the wheel's tree."""
    data = _data(tree)
    options = [*_include_options(generated, prefix), f"-L{data / 'lib'}", f"-L{prefix / 'lib'}"]
    for kind, runtime in RUNTIME_LIBRARIES.items():
        found = [path for folder in KINDS for path in generated[kind].glob(f"{folder}/**/*")]
        sources = sorted(path for path in found if path.suffix in (".c", ".cpp"))
        siblings = [] if kind == "rosidl_generator_c" else [f"{package.name}__rosidl_generator_c"]
        if kind == "rosidl_generator_py":
            siblings.append(f"{package.name}__rosidl_typesupport_c")
        dependencies = [f"{name}__{suffix}" for name in package.depends for suffix in {kind, "rosidl_generator_c"}]
        library = data / "lib" / f"lib{package.name}__{kind}.so"
        _link(compiler, library, sources, options, [*siblings, *sorted(dependencies), *runtime])
        for header in generated[kind].rglob("*.h"):
            target = data / "include" / package.name / package.name / header.relative_to(generated[kind])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(header, target)


def _install_python(package: Package, generated: dict[str, Path], tree: Path, prefix: Path, compiler: str) -> None:
    """Puts the Python package and its extension module into the wheel's tree."""
    generator = generated["rosidl_generator_py"]
    folder = tree / package.name
    for source in generator.rglob("*.py"):
        target = folder / source.relative_to(generator)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (folder / "__init__.py").touch()
    options = [*_include_options(generated, prefix), f"-L{_data(tree) / 'lib'}", f"-L{prefix / 'lib'}"]
    kinds = ("rosidl_generator_py", "rosidl_typesupport_c", "rosidl_generator_c")
    siblings = [f"{package.name}__{kind}" for kind in kinds]
    extension = folder / f"{package.name}_s__rosidl_typesupport_c.so"
    entry_points = [generator / f"_{package.name}_s.ep.rosidl_typesupport_c.c"]
    _link(compiler, extension, entry_points, options, [*siblings, "rosidl_typesupport_c", "rosidl_runtime_c"])


def _install_share(package: Package, generated: dict[str, Path], tree: Path) -> None:
    """Puts definitions, type description and the ament index into the wheel's tree."""
    share = _data(tree) / "share"
    shutil.copytree(generated["definitions"], share / package.name)
    shutil.copy(package.folder / "package.xml", share / package.name)
    installed = sorted(path.relative_to(share / package.name) for path in (share / package.name).glob("*/*"))
    interfaces = [str(path) for path in installed if path.suffix in (".idl", *(f".{kind}" for kind in KINDS))]
    index = share / "ament_index" / "resource_index"
    for resource, content in (
        ("packages", ""),
        ("package_run_dependencies", ";".join((*package.depends, "rosidl_default_runtime"))),
        ("rosidl_interfaces", "\n".join(interfaces)),
    ):
        (index / resource).mkdir(parents=True, exist_ok=True)
        (index / resource / package.name).write_text(content, encoding="utf-8")


def _data(tree: Path) -> Path:
    """The part of the wheel that pip unpacks into the environment's prefix."""
    return tree / f"{DISTRIBUTION}-{VERSION}.data" / "data"


def _tag() -> str:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"{python}-{python}-{re.sub('[-.]', '_', sysconfig.get_platform())}"


def _write_info(info: Path) -> None:
    info.mkdir()
    (info / "METADATA").write_text(_metadata(), encoding="utf-8")
    (info / "WHEEL").write_text(
        f"Wheel-Version: 1.0\nGenerator: {DISTRIBUTION}\nRoot-Is-Purelib: false\nTag: {_tag()}\n", encoding="utf-8"
    )


def _metadata() -> str:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {DISTRIBUTION.replace('_', '-')}",
        f"Version: {VERSION}",
        f"Summary: {SUMMARY}",
        f"License: {LICENSE}",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    return "\n".join(lines) + "\n"


def _pack(tree: Path, wheel_directory: Path) -> str:
    """Zips the tree into a wheel (the binary distribution format, PEP 427) and returns its file name."""
    stem = f"{DISTRIBUTION}-{VERSION}"
    info = tree / f"{stem}.dist-info"
    _write_info(info)
    record = []
    file_name = f"{stem}-{_tag()}.whl"
    with zipfile.ZipFile(wheel_directory / file_name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            name = path.relative_to(tree).as_posix()
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{path.stat().st_size}")
            wheel.write(path, name)
        record_name = f"{info.name}/RECORD"
        wheel.writestr(record_name, "\n".join([*record, f"{record_name},,"]) + "\n")
    return file_name
