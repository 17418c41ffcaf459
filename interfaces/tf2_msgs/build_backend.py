"""PEP 517 backend that turns `msg/*.msg` into a ROS interface package with the rosidl wheels and a C++ compiler.

The wheel has the layout of a ROS install: type support libraries in `lib/`, headers in `include/`, definitions and the
ament index in `share/`, and the Python package with its extension in site-packages.

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
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGE = "tf2_msgs"
DISTRIBUTION = "vla_ros_tf2_msgs"
DEPENDENCIES = ("geometry_msgs", "std_msgs", "builtin_interfaces")
REQUIREMENTS = ("ros-geometry-msgs~=5.5.1",)

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


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None) -> str:
    """Builds the wheel and returns its file name (PEP 517)."""
    compiler = _find_compiler()
    with tempfile.TemporaryDirectory() as folder:
        build, tree = Path(folder, "build"), Path(folder, "tree")
        prefix = _rosidl_prefix()
        generated = _generate(build, prefix)
        _install_libraries(generated, tree, prefix, compiler)
        _install_python(generated, tree, prefix, compiler)
        _install_share(generated, tree)
        return _pack(tree, Path(wheel_directory))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object = None) -> str:
    """Writes the metadata alone, so that pip needn't build twice, and returns its folder's name (PEP 517)."""
    info = Path(metadata_directory, f"{DISTRIBUTION}-{_package_xml('version')}.dist-info")
    _write_info(info)
    return info.name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Packs the sources and returns the file name (PEP 517)."""
    stem = f"{DISTRIBUTION}-{_package_xml('version')}"
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "PKG-INFO")
        info.write_text(_metadata(), encoding="utf-8")
        with tarfile.open(Path(sdist_directory, f"{stem}.tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as archive:
            archive.add(info, f"{stem}/PKG-INFO")
            for name in ("pyproject.toml", "build_backend.py", "package.xml", "README.md", "msg"):
                archive.add(ROOT / name, f"{stem}/{name}")
    return f"{stem}.tar.gz"


def _find_compiler() -> str:
    """The C++ compiler, which takes the C sources too. Ends the build with the mend where there is none."""
    compiler = next(
        (path for path in map(shutil.which, (os.environ.get("CXX", "g++"), "c++", "clang++")) if path), None
    )
    if compiler is None:
        raise SystemExit(f"{PACKAGE}: no C++ compiler found (g++); mend: sudo apt-get install g++")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(f"{PACKAGE}: no Python.h for Python {version}; mend: sudo apt-get install python{version}-dev")
    return compiler


def _rosidl_prefix() -> Path:
    """The prefix that holds the rosidl wheels: the environment's, or the one pip makes for an isolated build."""
    import rosidl_adapter

    share = Path("share", "rosidl_adapter")
    return next(folder for folder in Path(rosidl_adapter.__file__).parents if (folder / share).is_dir())


def _generate(build: Path, prefix: Path) -> dict[str, Path]:
    """Runs the rosidl generators.

    Returns:
        The folder of each generator's output. They are kept apart because two of them name a file the same.
    """
    os.environ["AMENT_PREFIX_PATH"] = str(prefix)
    from rosidl_adapter.msg import convert_msg_to_idl
    from rosidl_generator_c.cli import GenerateC
    from rosidl_generator_py.cli import GeneratePython
    from rosidl_generator_type_description.cli import HashTypeDescription
    from rosidl_typesupport_c.cli import GenerateCTypesupport
    from rosidl_typesupport_fastrtps_c.cli import GenerateFastRTPSCTypesupport
    from rosidl_typesupport_introspection_c.cli import GenerateIntrospectionCTypesupport

    definitions = build / "definitions"
    (definitions / "msg").mkdir(parents=True)
    messages = [path.relative_to(ROOT) for path in sorted(ROOT.glob("msg/*.msg"))]
    for message in messages:
        shutil.copy(ROOT / message, definitions / message)
        convert_msg_to_idl(ROOT, PACKAGE, message, definitions / "msg")
    interfaces = [f"{definitions}:{message.with_suffix('.idl')}" for message in messages]
    includes = [str(prefix / "share" / name) for name in DEPENDENCIES]
    descriptions = HashTypeDescription("hash").generate_type_hashes(PACKAGE, interfaces, includes, definitions)

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
        folders[name] = build / name / PACKAGE
        folders[name].mkdir(parents=True)
        extra = (descriptions,) if name == "rosidl_generator_c" else ()
        generator.generate(PACKAGE, interfaces, includes, folders[name], *extra)
    return folders


def _include_options(generated: dict[str, Path], prefix: Path) -> list[str]:
    import numpy

    folders = [folder.parent for name, folder in generated.items() if name != "definitions"]
    folders += [prefix / "include", *sorted(path for path in (prefix / "include").iterdir() if path.is_dir())]
    folders += [Path(sysconfig.get_path("include")), Path(numpy.get_include())]
    return [f"-I{folder}" for folder in folders]


def _link(compiler: str, output: Path, sources: Iterable[Path], options: list[str], libraries: Iterable[str]) -> None:
    """Compiles sources into one shared library. C sources are compiled as C, whatever the driver's own language."""
    objects = []
    with tempfile.TemporaryDirectory() as folder:
        for i, source in enumerate(sources):
            objects.append(str(Path(folder, f"{i}.o")))
            language = ["-x", "c"] if source.suffix == ".c" else ["-x", "c++", "-std=c++17"]
            _run([compiler, *language, "-O2", "-fPIC", "-w", *options, "-c", str(source), "-o", objects[-1]])
        output.parent.mkdir(parents=True, exist_ok=True)
        soname = f"-Wl,-soname,{output.name}"
        links = [f"-l{name}" for name in libraries]
        _run([compiler, "-shared", soname, *objects, *options, *links, "-o", str(output)])


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{PACKAGE}: {command[0]} failed to make {command[-1]}\n{result.stderr}")


def _install_libraries(generated: dict[str, Path], tree: Path, prefix: Path, compiler: str) -> None:
    """Puts the type support libraries and headers into the wheel's tree."""
    data = _data(tree)
    options = [*_include_options(generated, prefix), f"-L{data / 'lib'}", f"-L{prefix / 'lib'}"]
    for kind, runtime in RUNTIME_LIBRARIES.items():
        sources = sorted(path for path in generated[kind].glob("msg/**/*") if path.suffix in (".c", ".cpp"))
        siblings = [] if kind == "rosidl_generator_c" else [f"{PACKAGE}__rosidl_generator_c"]
        if kind == "rosidl_generator_py":
            siblings.append(f"{PACKAGE}__rosidl_typesupport_c")
        dependencies = [f"{name}__{suffix}" for name in DEPENDENCIES for suffix in {kind, "rosidl_generator_c"}]
        library = data / "lib" / f"lib{PACKAGE}__{kind}.so"
        _link(compiler, library, sources, options, [*siblings, *sorted(dependencies), *runtime])
        for header in generated[kind].rglob("*.h"):
            target = data / "include" / PACKAGE / PACKAGE / header.relative_to(generated[kind])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(header, target)


def _install_python(generated: dict[str, Path], tree: Path, prefix: Path, compiler: str) -> None:
    """Puts the Python package and its extension module into the wheel's tree."""
    generator = generated["rosidl_generator_py"]
    package = tree / PACKAGE
    for source in generator.rglob("*.py"):
        target = package / source.relative_to(generator)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (package / "__init__.py").touch()
    options = [*_include_options(generated, prefix), f"-L{_data(tree) / 'lib'}", f"-L{prefix / 'lib'}"]
    siblings = [f"{PACKAGE}__{kind}" for kind in ("rosidl_generator_py", "rosidl_typesupport_c", "rosidl_generator_c")]
    extension = package / f"{PACKAGE}_s__rosidl_typesupport_c.so"
    entry_points = [generator / f"_{PACKAGE}_s.ep.rosidl_typesupport_c.c"]
    _link(compiler, extension, entry_points, options, [*siblings, "rosidl_typesupport_c", "rosidl_runtime_c"])


def _install_share(generated: dict[str, Path], tree: Path) -> None:
    """Puts definitions, type description and the ament index into the wheel's tree."""
    share = _data(tree) / "share"
    definitions = shutil.copytree(generated["definitions"] / "msg", share / PACKAGE / "msg")
    for description in generated["definitions"].glob("*.json"):
        shutil.copy(description, definitions)
    shutil.copy(ROOT / "package.xml", share / PACKAGE)
    interfaces = sorted(f"msg/{path.name}" for path in definitions.iterdir() if path.suffix in (".msg", ".idl"))
    index = share / "ament_index" / "resource_index"
    for resource, content in (
        ("packages", ""),
        ("package_run_dependencies", "geometry_msgs;rosidl_default_runtime"),
        ("rosidl_interfaces", "\n".join(interfaces)),
    ):
        (index / resource).mkdir(parents=True)
        (index / resource / PACKAGE).write_text(content, encoding="utf-8")


def _data(tree: Path) -> Path:
    """The part of the wheel that pip unpacks into the environment's prefix."""
    return tree / f"{DISTRIBUTION}-{_package_xml('version')}.data" / "data"


def _package_xml(key: str) -> str:
    text = ElementTree.parse(ROOT / "package.xml").getroot().findtext(key)
    if text is None:
        raise SystemExit(f"{ROOT / 'package.xml'}: no <{key}>; mend: add it")
    return text


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
        f"Version: {_package_xml('version')}",
        f"Summary: {_package_xml('description')}",
        f"License: {_package_xml('license')}",
        "Requires-Python: >=3.10",
        *(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS),
    ]
    return "\n".join(lines) + "\n"


def _pack(tree: Path, wheel_directory: Path) -> str:
    """Zips the tree into a wheel (the binary distribution format, PEP 427) and returns its file name."""
    stem = f"{DISTRIBUTION}-{_package_xml('version')}"
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
