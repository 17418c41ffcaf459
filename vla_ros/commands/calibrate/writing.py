"""Results into YAML files: a new file beside the old one, or the file itself where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.calibration.yaml_text import Path as Keys
from vla_ros.calibration.yaml_text import difference, set_values
from vla_ros.config import find_config, load_yaml, parse_yaml
from vla_ros.errors import VlaRosError
from vla_ros.files import whole_file


@dataclass(frozen=True)
class Destination:
    """Where a result goes.

    Attributes:
        source: the file that is in force.
        path: the file to be written.
    """

    source: Path
    path: Path


@dataclass(frozen=True)
class Written:
    """What was written: the file, and how it differs from the one that was in force; empty if it doesn't."""

    path: Path
    difference: str


def destination(folder: str, word: str, out: Path | None, is_written: bool, *, many: bool = False) -> Destination:
    """Where a result goes; asked for before anything is measured, so that nothing is measured in vain.

    Args:
        folder: of names: `rigs` or `robots`; empty where `word` is a path.
        word: name or file of what is in force.
        out: file or folder to write to.
        is_written: whether the file itself is changed.
        many: whether several files are written, so that `out` has to be a folder.

    Raises:
        VlaRosError: if a file that nobody named would be overwritten.
    """
    source = find_config(folder, word) if folder else Path(word)
    if is_written and out is not None:
        raise VlaRosError("--write changes the file itself and --out writes another one: give one of them")
    if is_written:
        return Destination(source, source)
    name = f"{source.stem.removesuffix('.calibrated')}.calibrated.yaml"
    if out is not None and not many and not out.is_dir() and out.suffix in (".yaml", ".yml"):
        return Destination(source, out)
    if out is not None:
        return Destination(source, out / name)
    # A name stands for a file of the package, which isn't the user's to have files beside.
    is_path = not folder or word.endswith((".yaml", ".yml"))
    path = source.with_name(name) if is_path else Path(name)
    if path.exists():
        mend = f"go on from it with its path and --write, or name another one with --out PATH; {path} stays as it is"
        raise VlaRosError(f"{path} is there already; {mend}")
    return Destination(source, path)


def write(to: Destination, values: Mapping[Keys, Any], check: Callable[[Any, str], object]) -> Written:
    """Writes a file with some values changed.

    Args:
        to: where.
        values: keys from the outermost in -> value.
        check: raises for what bringup couldn't read; called with the data and where it is from.

    Raises:
        VlaRosError: as `check`, or if it can't be written.
    """
    before = to.source.read_text(encoding="utf-8")
    after = set_values(before, values, str(to.source)) if values else before
    check(parse_yaml(after, str(to.path)), str(to.path))
    told = difference(before, after, str(to.source), str(to.path))
    if told or to.path != to.source:
        try:
            with whole_file(to.path) as partial:
                partial.write_text(after, encoding="utf-8")
        except OSError as error:
            raise VlaRosError(f"{to.path} can't be written ({error.strerror}); name another one with --out") from error
    return Written(to.path, told)


def with_description(to: Destination, values: Mapping[Keys, Any]) -> dict[Keys, Any]:
    """The values, and where a robot's description is, if it lies beside its YAML and the new file won't."""
    description = load_yaml(to.source).get("description")
    beside = to.source.parent / str(description)
    if to.path.parent.resolve() != to.source.parent.resolve() and beside.is_file():
        return {**values, ("description",): str(beside.resolve())}
    return dict(values)


def rounded(values: Any, digits: int) -> list[float]:
    """Numbers as they are to stand in a file, without a minus before zero."""
    return [round(float(value), digits) + 0.0 for value in values]
