"""How fast recorded episodes become a dataset: MCAP to mp4 on two cores, beside the encoder alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.benchmarks.options import Options, Result
from vla_ros.benchmarks.timing import is_void
from vla_ros.policies.packages import packages_for
from vla_ros.types import FloatArray, ImageArray

_CORES = 2
_RATE_HZ, _CAMERAS = 30.0, ("base", "wrist")
_KEYS = ("export_gb_per_min", "export_over_encoder")


def run(options: Options) -> Result:
    """Measures `export_gb_per_min` and `export_over_encoder` with the default codec, bag by bag and in turn with the
    encoder on frames that are in memory, already converted."""
    with packages_for("export_gb_per_min"):
        from vla_ros.benchmarks.recording.export_bags import HEIGHT, WIDTH, pictures, source, write_episode
        from vla_ros.commands.exporting import keep_freed_memory
        from vla_ros.recording.encoding import CODECS, VideoSettings
    keep_freed_memory()  # For both that are compared.
    settings = VideoSettings()
    episodes, frames = (2, 180) if options.is_quick else (4, 450)
    rounds = 2 if options.is_quick else 3
    with tempfile.TemporaryDirectory(prefix="vla_ros_bench_") as name, _on_cores(_CORES) as cores:
        folder = Path(name)
        shown = {camera: pictures(camera, options.seed) for camera in _CAMERAS}
        bags = []
        for number in range(episodes):
            bags.append(write_episode(folder / "episodes", number, frames, _RATE_HZ, shown))
            options.progress("writing bags", (number + 1) / episodes)
        # Else what is flushed of an exported episode waits for the bags that were only just written.
        os.sync()
        made = source(_RATE_HZ)
        images = len(_CAMERAS) * frames * episodes
        planes = {camera: _planes(shown[camera]) for camera in _CAMERAS}
        times: dict[str, list[float]] = {"encoder": [], "export": [], "encoder_again": []}
        exported = 0
        for number in range(rounds + 1):
            # Who runs first pays for cold caches; the first round is thrown away.
            for part in times if number % 2 == 0 else reversed(times):
                start_s = time.perf_counter()
                if part == "export":
                    exported = _export(bags, made, folder / "dataset", cores)
                else:
                    _encode(planes, frames * episodes, settings, folder)
                times[part].append(time.perf_counter() - start_s)
            options.progress("export", (number + 1) / (rounds + 1))
    seconds = {part: np.array(values[1:]) for part, values in times.items()}
    ratios: FloatArray = seconds["encoder"] / seconds["export"] * exported / images
    control = float(np.median(seconds["encoder_again"] / seconds["encoder"]))
    image_bytes = exported * HEIGHT * WIDTH * 3
    figures: dict[str, Any] = {
        "export_gb_per_min": image_bytes / 1e9 / (float(np.median(seconds["export"])) / 60.0),
        "export_over_encoder": float(np.median(ratios)),
    }
    details = {
        "codec": settings.codec,
        "encoder": CODECS[settings.codec].encoder,
        "preset": settings.options["preset"],
        "crf": settings.options["crf"],
        "group": settings.group,
        "cores": cores,
        "cameras": f"{len(_CAMERAS)} of {WIDTH}x{HEIGHT} at {_RATE_HZ:g} Hz",
        "episodes": episodes,
        "images": images,
        "exported_images": exported,
        "frames_s": {part: images / float(np.median(values)) for part, values in seconds.items()},
        "export_over_encoder": {"low": float(ratios.min()), "high": float(ratios.max())},
        "a_a": control,
    }
    problems = []
    if is_void(control):
        problems.append(f"export_over_encoder is void: the A/A control was {control:.2f}; end what else runs")
        figures["export_over_encoder"] = None
    if cores < _CORES:
        problems.append(f"export_gb_per_min was measured on {cores} core, and is asked for on {_CORES}")
    series = {"times_ms": {part: 1e3 * values for part, values in seconds.items()}}
    return Result(figures, details, series, tuple(problems))


def _export(bags: Sequence[Path], made: Any, folder: Path, processes: int) -> int:
    """Exports as `vla-ros export` does; how many images are in the dataset."""
    from vla_ros.commands.exporting import export
    from vla_ros.errors import DatasetError
    from vla_ros.recording.formats import lerobot

    shutil.rmtree(folder, ignore_errors=True)
    report = export(bags, made, lambda schema: lerobot.create(folder, schema, {}), processes, lambda *_: None)
    if report.failed:
        raise DatasetError(f"the benchmark's own episodes can't be exported: {report.failed}")
    return report.frames * len(_CAMERAS)


def _planes(images: Sequence[ImageArray]) -> list[Any]:
    import cv2

    return [cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420) for image in images]


def _encode(planes: dict[str, list[Any]], frames: int, settings: Any, folder: Path) -> None:
    """The encoder alone: a stream a camera, side by side, each on one thread."""
    threads = [
        threading.Thread(target=_encode_stream, args=(each, frames, settings, folder / f"{camera}.mp4"))
        for camera, each in planes.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _encode_stream(planes: list[Any], frames: int, settings: Any, path: Path) -> None:
    import av

    from vla_ros.recording.encoding import CODECS

    with av.open(str(path), "w", format="mp4") as container:
        encoder = CODECS[settings.codec].encoder
        stream: Any = container.add_stream(encoder, rate=round(_RATE_HZ), options=settings.options)
        stream.height, stream.width, stream.pix_fmt = planes[0].shape[0] * 2 // 3, planes[0].shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(planes[number % len(planes)], format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@contextmanager
def _on_cores(count: int) -> Iterator[int]:
    """Holds this process and those that it starts to a few cores."""
    before = os.sched_getaffinity(0)
    chosen = set(sorted(before)[:count])
    os.sched_setaffinity(0, chosen)
    try:
        yield len(chosen)
    finally:
        os.sched_setaffinity(0, before)
