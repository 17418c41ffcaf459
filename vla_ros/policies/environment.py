"""Another environment's Python: found, looked through, and kept apart from this one.

The other environment needs numpy, PyYAML and the remote protocol's two packages, and whatever its policies need; not
ROS, not pinocchio, not vla_ros, which is lent to it (`served_process`). Neither sees the other's packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vla_ros.errors import ConfigError, MissingDependencyError

# Module -> the name that pip knows, of what vla_ros itself imports there.
SERVER_NEEDS: Mapping[str, str] = {
    "numpy": "numpy",
    "yaml": "PyYAML",
    "msgpack": "msgpack",
    "websockets": "websockets",
}
_OLDEST_PYTHON = (3, 10)
_PROBE_TIMEOUT_S = 60.0

# `-c` puts the working directory first on the path, where any folder called lerobot would be taken for lerobot.
_PROBE = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import importlib.util, json
found = {name: importlib.util.find_spec(name) is not None for name in sys.argv[1:]}
print(json.dumps({"version": sys.version_info[:2], "prefix": sys.prefix, "found": found}))
"""


@dataclass(frozen=True)
class Environment:
    """Another environment's Python.

    Attributes:
        python: its executable.
        prefix: its `sys.prefix`.
    """

    python: Path
    prefix: Path


def find_python(where: str | Path) -> Path:
    """The executable of an environment: a venv's or conda's folder, or the path of a Python itself.

    Raises:
        ConfigError: if there is none.
    """
    # Not resolved: a venv's python is a link to the one it was made from, which has none of its packages.
    path = Path.cwd() / Path(where).expanduser()
    python = path / "bin" / "python" if path.is_dir() else path
    if python.is_file() and os.access(python, os.X_OK):
        return python
    raise ConfigError(
        str(where),
        f"no Python there ({python} isn't an executable)",
        "give the folder of a venv or conda environment; scripts/make_lerobot_environment.sh makes one for lerobot",
    )


def is_this_environment(where: str | Path) -> bool:
    """Whether this process runs in that environment already."""
    python = find_python(where)
    prefix = python.parent.parent
    return python == Path(sys.executable) or (prefix.is_dir() and prefix.samefile(sys.prefix))


def look_through(
    where: str | Path, needed_for: str, needs: Mapping[str, str] = SERVER_NEEDS, mend: str = ""
) -> Environment:
    """An environment, once it is known to have what a policy there needs. Nothing is imported there.

    Args:
        where: see `find_python`.
        needed_for: end of the sentence "... is missing, needed for".
        needs: module -> the name under which pip installs it.
        mend: what to do if one is missing; by default, `pip install` of what is.

    Raises:
        ConfigError: if it isn't a Python that works, or too old a one.
        MissingDependencyError: naming every module it lacks.
    """
    python = find_python(where)
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE, *needs],
            env=child_environ(None),
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise ConfigError(
            str(where), f"{python} doesn't run ({said[-1] if said else 'no answer'})", "make the environment anew"
        ) from error
    version = tuple(answer["version"])
    if version < _OLDEST_PYTHON:
        raise ConfigError(
            str(where), f"has Python {version[0]}.{version[1]}, vla_ros needs 3.10 or newer", "make it with a newer one"
        )
    missing = [package for module, package in needs.items() if not answer["found"][module]]
    if missing:
        raise MissingDependencyError(
            f"in {where}: {', '.join(missing)}", needed_for, mend or f"{python} -m pip install {' '.join(missing)}"
        )
    return Environment(python, Path(answer["prefix"]))


def child_environ(lent: Path | None) -> dict[str, str]:
    """The environment variables of a process in another environment: ours, without what leads back to this one.

    Args:
        lent: folder to import vla_ros from, None for none.
    """
    ours = [sys.prefix, *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep))]
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    }
    libraries = [
        folder
        for folder in environ.pop("LD_LIBRARY_PATH", "").split(os.pathsep)
        if folder and not any(Path(folder).is_relative_to(prefix) for prefix in ours)
    ]
    if libraries:
        environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    if lent is not None:
        environ["PYTHONPATH"] = str(lent)
    return environ
