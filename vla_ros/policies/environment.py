"""A policy server in another environment's Python: found, looked through, started, and ended with this process.

The other environment needs numpy, PyYAML and the remote protocol's two packages, and whatever its policies need; not
ROS, not pinocchio, not vla_ros. This copy of vla_ros is lent to it through a folder that holds nothing else, so that
neither environment sees the other's packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vla_ros.errors import ConfigError, MissingDependencyError, VlaRosError

# Module -> the name that pip knows, of what vla_ros itself imports there.
SERVER_NEEDS: Mapping[str, str] = {
    "numpy": "numpy",
    "yaml": "PyYAML",
    "msgpack": "msgpack",
    "websockets": "websockets",
}
_OLDEST_PYTHON = (3, 10)
_PROBE_TIMEOUT_S, _POLL_S, _STOP_TIMEOUT_S = 60.0, 0.05, 5.0
_LINES_KEPT = 40

# `-c` puts the working directory first on the path, where any folder called lerobot would be taken for lerobot.
_PROBE = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import importlib.util, json
found = {name: importlib.util.find_spec(name) is not None for name in sys.argv[1:]}
print(json.dumps({"version": sys.version_info[:2], "prefix": sys.prefix, "found": found}))
"""
# Standard input is a pipe from the parent: when that ends, however it ends, the pipe does too.
_SERVE = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import os, threading
def end_with_parent():
    while os.read(0, 1):
        pass
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
from vla_ros.cli import main
sys.exit(main(sys.argv[1:]))
"""


class ServerStartError(VlaRosError):
    """A policy server in another environment that ended, or wasn't ready in time."""


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


class ServedProcess:
    """`vla-ros WORDS...` run by another environment's Python. It ends when this process does, or with `close`.

    Args:
        environment: from `look_through`.
        words: arguments of `vla-ros`, such as `serve`.
        on_line: called with every line that it prints, from a thread of its own.
    """

    def __init__(
        self, environment: Environment, words: Sequence[str], on_line: Callable[[str], None] | None = None
    ) -> None:
        self._lent = tempfile.TemporaryDirectory(prefix="vla_ros_lent_")
        lent = Path(self._lent.name)
        (lent / "vla_ros").symlink_to(Path(__file__).resolve().parents[1], target_is_directory=True)
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._process = subprocess.Popen(
            [str(environment.python), "-u", "-c", _SERVE, *words],
            env=child_environ(lent),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=_read, args=(self._process, self._lines, on_line), daemon=True)
        self._reader.start()
        self._finalizer = weakref.finalize(self, _end, self._process, self._lent)
        self._name = f"vla-ros {' '.join(words)} in {environment.prefix}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines that it printed."""
        return tuple(self._lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self._process.wait()
        self._reader.join(_STOP_TIMEOUT_S)
        return code

    def wait_for_url(self, timeout_s: float) -> str:
        """Where it listens, once it says so, as `serve --json` does.

        Raises:
            ServerStartError: with the last thing it said, if it ended or isn't ready in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.is_running:
            for line in self.lines:
                if line.startswith("{") and (url := _url_in(line)):
                    return url
            if time.monotonic() > deadline_s:
                self.close()
                raise ServerStartError(
                    f"{self._name} wasn't ready after {timeout_s:g} s; its last line was {self.last_line!r}; "
                    "give it more time, or start it by hand and look"
                )
            time.sleep(_POLL_S)
        code = self.wait()
        raise ServerStartError(f"{self._name} ended with code {code}: {self.last_line}")

    def close(self) -> None:
        """Ends it."""
        self._finalizer()

    def __enter__(self) -> ServedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_line(self) -> str:
        """The last thing that it said."""
        said = [line for line in self._lines if line.strip()]
        return said[-1].removeprefix("vla-ros: ") if said else "it said nothing"


def serve_in(where: str | Path, words: Sequence[str], on_line: Callable[[str], None]) -> int:
    """Runs `vla-ros WORDS...`, a `serve`, in another environment until it ends: `vla-ros serve --in-env WHERE`.

    Returns:
        Its exit code.

    Raises:
        ConfigError, MissingDependencyError: see `look_through`.
    """
    with ServedProcess(look_through(where, "a policy server there"), words, on_line) as process:
        return process.wait()


def _url_in(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return ""
    return str(said.get("url", "")) if isinstance(said, dict) else ""


def _read(process: subprocess.Popen[str], lines: deque[str], on_line: Callable[[str], None] | None) -> None:
    for line in process.stdout or ():
        lines.append(line.rstrip())
        if on_line is not None:
            on_line(line.rstrip())


def _end(process: subprocess.Popen[str], lent: tempfile.TemporaryDirectory[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
    lent.cleanup()
