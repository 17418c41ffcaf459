"""Recorded episodes into a dataset, several at a time."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import cv2

from vla_ros.commands.export_source import Source, identity
from vla_ros.errors import DatasetError, VlaRosError
from vla_ros.recording.dataset import DatasetWriter, EpisodeFrames, Schema
from vla_ros.recording.formats.schema import check_same_schema

# <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


@dataclass
class Report:
    """What came of an export.

    Attributes:
        written: names of the episodes.
        skipped: that were there already.
        dropped: folders of those that gaps leave nothing of.
        failed: reason by folder.
        findings: what was found in those written, by name.
        frames: of those written.
    """

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)
    frames: int = 0


def export(
    folders: Sequence[Path],
    source: Source,
    create: Callable[[Schema], DatasetWriter],
    processes: int,
    on_episode: Callable[[int, int], None],
) -> Report:
    """Puts episodes into a dataset; one that fails is named and left out.

    Args:
        folders: of the bags.
        source: how they are read.
        create: begins the dataset, or goes on with it.
        processes: that read and encode; formats that can't be staged are written by this one.
        on_episode: called with how many are done, and how many there are.

    Raises:
        DatasetError: if the dataset can't be written to.
    """
    report = Report()
    keep_freed_memory()
    if processes > 1:
        # It imports what workers need while the first episode is read.
        multiprocessing.set_forkserver_preload([__name__, "vla_ros.recording.formats.lerobot"])
        forkserver.ensure_running()
    writer: DatasetWriter | None = None
    waiting = deque(folders)
    first: _Outcome | None = None
    while writer is None and waiting:
        # The first episode that can be read says what the dataset is.
        folder = waiting.popleft()
        try:
            schema, episodes = source.read(folder)
        except VlaRosError as error:
            report.failed[str(folder)] = str(error)
        else:
            writer, first = create(schema), _outcome(folder, episodes)
    if writer is None or first is None:
        return report
    try:
        there, jobs = set(writer.names), []
        for folder in waiting:
            try:
                name = identity(folder)
            except VlaRosError as error:
                report.failed[str(folder)] = str(error)
                continue
            if name in there:
                report.skipped.append(name)
            else:
                jobs.append(folder)
        done = len(folders) - len(jobs)
        for number, outcome in enumerate(_work(first, jobs, source, writer, schema, processes), start=done):
            _note(outcome, report, writer)
            on_episode(number, len(folders))
    except BaseException:
        with contextlib.suppress(VlaRosError):
            writer.close()
        raise
    writer.close()
    return report


def keep_freed_memory() -> None:
    """An image's memory is used again for the next one.

    glibc gives blocks of that size back to the system, and has them zeroed again, each time: without this, reading
    images out of a bag takes three times as long.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 512 << 20), (_M_TOP_PAD, 16 << 20)):
            mallopt(parameter, size)


@dataclass(frozen=True)
class _Part:
    """An episode that is ready: its frames, or where another process has staged it."""

    name: str
    frames: int
    findings: Any
    staged: Path | None = None
    episode: EpisodeFrames | None = None


@dataclass(frozen=True)
class _Outcome:
    folder: Path
    parts: tuple[_Part, ...] = ()
    problem: str = ""


def _note(outcome: _Outcome, report: Report, writer: Any) -> None:
    if outcome.problem:
        report.failed[str(outcome.folder)] = outcome.problem
        return
    if not outcome.parts:
        report.dropped.append(str(outcome.folder))
        return
    pieces, whole = {part.name for part in outcome.parts}, _whole(outcome.parts[0].name)
    others = [name for name in writer.names if _whole(name) == whole and name not in pieces]
    if others:
        report.failed[str(outcome.folder)] = (
            f"is in the dataset already, but in other pieces ({others[0]!r} is none of {len(pieces)} now): --gaps, "
            "--tolerance-s or the recording changed; export all into a new folder"
        )
        return
    for part in outcome.parts:
        if part.name in writer.names:
            report.skipped.append(part.name)
            continue
        try:
            if part.staged is not None:
                writer.adopt(part.staged)
            else:
                writer.add(part.episode)
        except VlaRosError as error:
            report.failed[f"{outcome.folder} ({part.name})"] = str(error)
            continue
        report.written.append(part.name)
        report.frames += part.frames
        if part.findings:
            report.findings[part.name] = part.findings


def _whole(name: str) -> str:
    """The episode that a piece is of."""
    return re.sub(r"#\d+$", "", name)


def _work(
    first: _Outcome, folders: Sequence[Path], source: Source, writer: Any, schema: Schema, processes: int
) -> Iterator[_Outcome]:
    """What came of each episode, in order; the first is there already."""
    stager = getattr(writer, "stager", None)
    if processes < 2 or stager is None or not folders:
        yield first
        for folder in folders:
            yield _read(folder, source, schema)
        return
    # Not forked from here: encoders have threads.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(min(processes, len(folders)), context, _ready_worker) as pool:
        running: deque[tuple[Path, Future[_Outcome]]] = deque()
        left, is_first = deque(enumerate(folders)), True
        while left or running or is_first:
            while left and len(running) < 2 * processes:
                number, folder = left.popleft()
                running.append((folder, pool.submit(_stage, folder, source, schema, stager, number)))
            if is_first:
                is_first = False
                yield first
                continue
            folder, future = running.popleft()
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise DatasetError(
                    f"a process that exported {folder} was killed, perhaps for want of memory; run it again with fewer "
                    "--processes"
                ) from error


def _ready_worker() -> None:
    keep_freed_memory()
    cv2.setNumThreads(1)  # The other cores have processes of their own.


def _outcome(folder: Path, episodes: Sequence[EpisodeFrames]) -> _Outcome:
    parts = (_Part(part.name, len(part), part.attributes.get("findings"), episode=part) for part in episodes)
    return _Outcome(folder, tuple(parts))


def _read(folder: Path, source: Source, schema: Schema) -> _Outcome:
    try:
        found, episodes = source.read(folder)
        check_same_schema(str(folder), found, schema)
    except VlaRosError as error:
        return _Outcome(folder, problem=str(error))
    return _outcome(folder, episodes)


def _stage(
    folder: Path, source: Source, schema: Schema, stager: Callable[[EpisodeFrames, int], Path], number: int
) -> _Outcome:
    """In another process: everything but the episode's number."""
    read = _read(folder, source, schema)
    parts: list[_Part] = []
    for place, part in enumerate(read.parts):
        if part.episode is None:
            continue
        try:
            staged = stager(part.episode, 1000 * number + place)
        except VlaRosError as error:
            return _Outcome(folder, tuple(parts), str(error))
        parts.append(dataclasses.replace(part, staged=staged, episode=None))
    return _Outcome(folder, tuple(parts), read.problem)
