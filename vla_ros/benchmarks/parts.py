"""What benchmarks are made of: parts that can be run alone, each with what it has to show."""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.requirement import Requirement
from vla_ros.errors import MissingDependencyError, UnknownNameError
from vla_ros.evaluation.versions import installed_version, versions


@dataclass(frozen=True)
class Part:
    """A stretch of a benchmark.

    Attributes:
        module: below the benchmark's package, with `run(options) -> Result`.
        meaning: for a person.
        requirements: what it has to show.
    """

    module: str
    meaning: str
    requirements: tuple[Requirement, ...]


@dataclass(frozen=True)
class Benchmark:
    """A list of parts.

    Attributes:
        name: as `vla-ros bench` has it.
        package: where its modules are.
        parts: by name, in the order in which they run.
        packages: whose versions count.
    """

    name: str
    package: str
    parts: Mapping[str, Part]
    packages: tuple[str, ...]

    def chosen(self, only: Sequence[str]) -> list[str]:
        """The parts of those names, in the order in which they run; all for none.

        Raises:
            UnknownNameError: for a name that isn't a part's.
        """
        for name in only:
            if name not in self.parts:
                raise UnknownNameError(f"part of the benchmark {self.name}", name, self.parts)
        return [name for name in self.parts if name in only or not only]

    def requirements(self, names: Sequence[str]) -> list[Requirement]:
        """What those parts have to show."""
        return [requirement for name in names for requirement in self.parts[name].requirements]

    def run_part(self, name: str, options: Options) -> Result:
        """Runs one; without a package that it needs its figures are missing, and the problem says so."""
        part = self.parts[name]
        try:
            result: Result = importlib.import_module(f"{self.package}.{part.module}").run(options)
        except MissingDependencyError as error:
            keys = {requirement.key.split(".")[0]: None for requirement in part.requirements}
            return Result(dict(keys), problems=(str(error),))
        return result

    def run(self, names: Sequence[str], options: Options) -> tuple[dict[str, Any], dict[str, Result]]:
        """Runs parts one after the other.

        Returns:
            The results as one object, and what each part found.
        """
        found: dict[str, Result] = {}
        seconds: dict[str, float] = {}
        for name in names:
            start_s = time.monotonic()
            options.progress(name, 0.0)
            found[name] = self.run_part(name, options)
            seconds[name] = round(time.monotonic() - start_s, 2)
            options.progress(name, 1.0)
        return self.results(found, seconds, options), found

    def results(self, found: Mapping[str, Result], seconds: Mapping[str, float], options: Options) -> dict[str, Any]:
        """What parts found, as one object."""
        results: dict[str, Any] = {"benchmark": self.name, "is_quick": options.is_quick, "seed": options.seed}
        for result in found.values():
            results |= result.figures
        results["problems"] = [problem for result in found.values() for problem in result.problems]
        results["details"] = {name: result.details for name, result in found.items()}
        results["seconds"] = dict(seconds)
        results["versions"] = versions() | {name: installed_version(name) for name in self.packages}
        results["machine"] = _machine()
        return results


def _machine() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": name or platform.processor(), "cores": os.cpu_count(), "system": platform.platform()}
