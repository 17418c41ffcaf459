"""Images as a contract wants them, prepared once and kept in a file that is mapped into memory.

One file for each image of a contract, (frames, 3, h, w) uint8 of all frames of a dataset in order. Its name holds
hashes of the contract's rule for the image and of the dataset's files (path, size, time of change), so that another
rule or a changed dataset never meets an old file, and of the dataset's place where datasets may share a folder. It
takes its name when it is whole.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vla_ros.contract import ImageSpec, canonical_hash
from vla_ros.errors import DatasetError, MissingDependencyError
from vla_ros.files import flush_to_disk, whole_file
from vla_ros.observation.image import prepare_frame, prepared_size
from vla_ros.recording.dataset import Dataset, ImageColumn
from vla_ros.recording.opening import open_any
from vla_ros.training.fitting import Fit
from vla_ros.types import CameraFrame, ImageArray

CACHE_FOLDER = ".vla_ros_cache"
_VERSION = 1
# Fewer than that aren't worth a process.
_FRAMES_A_GROUP = 400

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class CacheOptions:
    """Where prepared images are kept.

    Attributes:
        is_kept: in files; else in memory only.
        folder: of the files; None for `.vla_ros_cache` in the dataset's own folder.
        processes: that prepare images side by side; 0 for one a core.
    """

    is_kept: bool = True
    folder: Path | None = None
    processes: int = 0


@dataclass(frozen=True)
class _Wanted:
    """One image of the contract: from which column, by which rule, (h, w) how large."""

    name: str
    column: ImageColumn
    spec: ImageSpec

    @property
    def size(self) -> tuple[int, int]:
        width, height = prepared_size(self.spec, self.column.width, self.column.height)
        return height, width


def prepare_images(
    path: Path, dataset: Dataset, fit: Fit, lengths: Sequence[int], options: CacheOptions, progress: Progress
) -> dict[str, ImageArray]:
    """The images of a dataset under a contract.

    Args:
        path: of the dataset.
        dataset: opened.
        fit: its columns under the contract.
        lengths: frames of its episodes.
        options: where they are kept.
        progress: told how far it is.

    Returns:
        The contract's image -> (frames, 3, h, w) uint8; black where the dataset has none, and may have none.

    Raises:
        DatasetError: if a video is missing or damaged, or the files can't be written.
    """
    frames = sum(lengths)
    wanted = [
        _Wanted(name, column, fit.contract.observation.images[name])
        for name, column in fit.images.items()
        if column is not None
    ]
    found = _black(fit, wanted, frames)
    if not options.is_kept:
        made = {each.name: np.empty((frames, 3, *each.size), dtype=np.uint8) for each in wanted}
        for index, start in enumerate(_starts(lengths)):
            _fill_episode(dataset, index, start, wanted, made)
            progress("images", (index + 1) / len(lengths))
        return {**found, **made}
    folder = options.folder or (path if path.is_dir() else path.parent) / CACHE_FOLDER
    data_hash = _hash_of_files(path)
    files = {each.name: folder / f"{_prefix(each, path, folder)}{data_hash}.npy" for each in wanted}
    shapes = {each.name: (frames, 3, *each.size) for each in wanted}
    missing = [each for each in wanted if _opened(files[each.name], shapes[each.name]) is None]
    try:
        if missing:
            _make_files(path, data_hash, dataset, missing, files, lengths, options, progress)
    except OSError as error:
        raise DatasetError(
            f"prepared images can't be written to {folder} ({error.strerror}); name another folder (`cache`), or keep "
            "them in memory (`is_cached: false`)"
        ) from error
    for each in wanted:
        opened = _opened(files[each.name], shapes[each.name])
        if opened is None:
            raise DatasetError(f"{files[each.name]} was changed while it was made; try again")
        found[each.name] = opened
    return found


class Rows:
    """The images of a file, read in random order.

    Args:
        images: (n, ...) as `prepare_images` gives them.
    """

    def __init__(self, images: ImageArray) -> None:
        # A plain array: each look into a `memmap` would make another one.
        self._images = np.asarray(images)
        self._map = images.base if isinstance(images.base, mmap.mmap) else None
        self._start = 0
        if self._map is not None:
            # What the system reads beside a row, in the hope that it is wanted next, can be megabytes.
            self._map.madvise(mmap.MADV_RANDOM)
            self._start = np.frombuffer(self._map, dtype=np.uint8).ctypes.data

    def __getitem__(self, row: int) -> ImageArray:
        return self._images[row]

    def bring(self, row: int) -> None:
        """Has a row read from the disk meanwhile, where it isn't in memory, so that many are waited for only once."""
        if self._map is None:
            return
        first = self._images[row].ctypes.data - self._start
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, first + self._images[row].nbytes - page)


def _make_files(
    path: Path,
    data_hash: str,
    dataset: Dataset,
    wanted: Sequence[_Wanted],
    files: Mapping[str, Path],
    lengths: Sequence[int],
    options: CacheOptions,
    progress: Progress,
) -> None:
    with contextlib.ExitStack() as stack:
        partial = {each.name: stack.enter_context(whole_file(files[each.name])) for each in wanted}
        for each in wanted:
            shape = (sum(lengths), 3, *each.size)
            np.lib.format.open_memmap(partial[each.name], mode="w+", dtype=np.uint8, shape=shape)
        groups = _groups(lengths)
        processes = min(options.processes or len(os.sched_getaffinity(0)), len(groups))
        if processes <= 1:
            results: Iterator[int] = (_fill_group(dataset, group, wanted, partial) for group in groups)
        else:
            results = _in_processes(processes, path, data_hash, groups, wanted, partial)
        done = 0
        for count in results:
            done += count
            progress("images", done / max(1, sum(lengths)))
        for file in partial.values():
            flush_to_disk(file)
    for each in wanted:
        # Of the same dataset and rule, and data that was otherwise.
        for old in files[each.name].parent.glob(f"{_prefix(each, path, files[each.name].parent)}*.npy"):
            if old != files[each.name]:
                old.unlink(missing_ok=True)


def _in_processes(
    processes: int,
    path: Path,
    data_hash: str,
    groups: Sequence[Sequence[tuple[int, int]]],
    wanted: Sequence[_Wanted],
    files: Mapping[str, Path],
) -> Iterator[int]:
    try:
        import joblib
    except ModuleNotFoundError as error:
        raise MissingDependencyError("joblib", "preparing images in several processes", "pip install joblib") from error
    work = (joblib.delayed(_open_and_fill)(path, data_hash, group, wanted, files) for group in groups)
    yield from joblib.Parallel(n_jobs=processes, return_as="generator_unordered")(work)


def _open_and_fill(
    path: Path, data_hash: str, group: Sequence[tuple[int, int]], wanted: Sequence[_Wanted], files: Mapping[str, Path]
) -> int:
    return _fill_group(_open_once(path, data_hash), group, wanted, files)


@functools.lru_cache(maxsize=1)
def _open_once(path: Path, data_hash: str) -> Dataset:
    """A process has many groups to fill; another hash is another dataset at the same place."""
    return open_any(path)[1]


def _fill_group(
    dataset: Dataset, group: Sequence[tuple[int, int]], wanted: Sequence[_Wanted], files: Mapping[str, Path]
) -> int:
    images = {name: np.lib.format.open_memmap(file, mode="r+") for name, file in files.items()}
    done = sum(_fill_episode(dataset, index, start, wanted, images) for index, start in group)
    for array in images.values():
        array.flush()
    return done


def _fill_episode(
    dataset: Dataset, index: int, start: int, wanted: Sequence[_Wanted], images: Mapping[str, ImageArray]
) -> int:
    """Prepares an episode's images; how many frames it has."""
    frames = dataset.read(index)
    by_column: dict[str, list[_Wanted]] = {}
    for each in wanted:
        by_column.setdefault(each.column.name, []).append(each)
    counts = dict.fromkeys(by_column, 0)
    for name, frame, image in frames.read_images():
        for each in by_column.get(name, ()):
            prepared = prepare_frame(CameraFrame(0, image), replace(each.spec, with_geometry=False)).image
            images[each.name][start + frame] = prepared.transpose(2, 0, 1)
        if name in counts:
            counts[name] += 1
    for name, count in counts.items():
        if count != len(frames):
            raise DatasetError(f"episode {frames.name} has {count} of {len(frames)} images {name}; copy it anew")
    return len(frames)


def _black(fit: Fit, wanted: Sequence[_Wanted], frames: int) -> dict[str, ImageArray]:
    """For images that are absent: of the size that the contract says, or that the reference has."""
    sizes = {each.name: each.size for each in wanted}
    observation = fit.contract.observation
    usual = sizes.get(observation.reference, (0, 0))
    return {
        name: np.zeros(
            (frames, 3, observation.images[name].height or usual[0], observation.images[name].width or usual[1]),
            dtype=np.uint8,
        )
        for name, column in fit.images.items()
        if column is None
    }


def _opened(file: Path, shape: tuple[int, ...]) -> ImageArray | None:
    """A file of prepared images, None where there is none or it isn't whole."""
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _prefix(wanted: _Wanted, path: Path, folder: Path) -> str:
    """Of the names of an image's files, whatever is in the dataset; one that has its files with it may be moved."""
    rule = canonical_hash({"version": _VERSION, "column": wanted.column, "rule": wanted.spec})[:8]
    place = "" if path in folder.parents else f"{canonical_hash(str(path.resolve()))[:8]}_"
    return f"{wanted.name}_{rule}_{place}"


def _hash_of_files(path: Path) -> str:
    found = {}
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if CACHE_FOLDER not in file.parts and file.is_file():
            stat = file.stat()
            found[file.relative_to(path.parent).as_posix()] = f"{stat.st_size} {stat.st_mtime_ns}"
    return canonical_hash(found)


def _starts(lengths: Sequence[int]) -> list[int]:
    """First frame of each episode in all frames."""
    return [0, *np.cumsum(lengths)[:-1].tolist()] if lengths else []


def _groups(lengths: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Episodes with their first frames, together some hundred frames each."""
    groups: list[list[tuple[int, int]]] = []
    size = _FRAMES_A_GROUP
    for index, (start, length) in enumerate(zip(_starts(lengths), lengths, strict=True)):
        if size >= _FRAMES_A_GROUP:
            groups.append([])
            size = 0
        groups[-1].append((index, start))
        size += length
    return groups
