"""The video of a recorded episode: what all its cameras saw, side by side, on the clock of its plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vla_ros.evaluation.video import VideoWriter, caption
from vla_ros.recording.recorded import RecordedCamera, RecordedEpisode, StampArray
from vla_ros.types import ImageArray

_MOST_HZ, _LEAST_HZ = 30.0, 1.0


def write_video(
    episode: RecordedEpisode,
    path: Path,
    start_ns: int,
    duration_s: float,
    progress: Callable[[float], None] = lambda _fraction: None,
) -> int:
    """Writes it; each moment shows the newest image that each camera had then.

    Args:
        episode: with at least one camera.
        path: of the mp4.
        start_ns: ROS time of its first frame.
        duration_s: of all.
        progress: called with the share that is done.

    Returns:
        How many frames it has.

    Raises:
        RecordingError: for an image that can't be decoded.
        VideoError: if it can't be written.
    """
    fps = _rate_hz(list(episode.cameras.values()))
    count = max(1, round(duration_s * fps))
    stamps_ns = start_ns + np.round(np.arange(count) * 1e9 / fps).astype(np.int64)
    tracks = {name: _newest_images(camera, stamps_ns) for name, camera in episode.cameras.items() if len(camera)}
    # So that the layout has all cameras from the first frame on.
    sizes = {name: (episode.cameras[name].height, episode.cameras[name].width, 3) for name in tracks}
    blank = {name: np.zeros(size, dtype=np.uint8) for name, size in sizes.items()}
    states = _states_at(episode, stamps_ns)
    with VideoWriter(path, fps, is_patient=True) as video:
        for frame in range(count):
            images = {name: next(track) for name, track in tracks.items()}
            shown = {name: blank[name] if image is None else image for name, image in images.items()}
            video.write(shown, caption(episode.info.task, frame / fps, states[frame]))
            progress((frame + 1) / count)
    return video.frames_written


def _rate_hz(cameras: list[RecordedCamera]) -> float:
    """Of the fastest camera."""
    steps_ns = [float(np.median(np.diff(camera.stamps_ns))) for camera in cameras if len(camera) > 1]
    return min(_MOST_HZ, max(_LEAST_HZ, round(1e9 / min(steps_ns)))) if steps_ns else _LEAST_HZ


def _newest_images(camera: RecordedCamera, stamps_ns: StampArray) -> Iterator[ImageArray | None]:
    """At each time the newest image that isn't later, None before the first; one is in memory at a time."""
    wanted = np.searchsorted(camera.stamps_ns, stamps_ns, side="right") - 1
    images = camera.read(wanted[wanted >= 0])
    index, image = -1, None
    for number in wanted.tolist():
        while index < number:
            index, image = next(images)
        yield image


def _states_at(episode: RecordedEpisode, stamps_ns: StampArray) -> list[str]:
    """Who has the arm, and the filter's state, at each time."""
    told = ["", *(f"{item.source or 'nobody'}, {item.state.value}" for item in episode.verdicts)]
    index = np.searchsorted([item.stamp_ns for item in episode.verdicts], stamps_ns, side="right")
    return [told[number] for number in index.tolist()]
