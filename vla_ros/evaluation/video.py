"""The video of an episode: the cameras side by side with a line of text below, encoded beside everything else."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla_ros.errors import MissingDependencyError, VlaRosError
from vla_ros.files import whole_file
from vla_ros.types import ImageArray

_MIN_HEIGHT = 240  # Smaller images are enlarged, so that the text can be read.
_CAPTION_HEIGHT = 32
_MARGIN = 8
_QUEUE = 32  # Frames; a second and more of both cameras.
_NICENESS = 10


class VideoError(VlaRosError):
    """A video that couldn't be written."""


@dataclass(frozen=True)
class _Frame:
    index: int
    images: Mapping[str, ImageArray]
    caption: str


class FrameComposer:
    """Puts images side by side. The first frame's cameras and sizes settle the layout of all."""

    def __init__(self, images: Mapping[str, ImageArray]) -> None:
        height = _even(max(_MIN_HEIGHT, *(image.shape[0] for image in images.values())))
        self._sizes = {
            name: (_even(round(image.shape[1] * height / image.shape[0])), height) for name, image in images.items()
        }
        self.width = sum(width for width, _ in self._sizes.values())
        self.height = height + _CAPTION_HEIGHT

    def compose(self, images: Mapping[str, ImageArray], caption: str) -> ImageArray:
        """One picture, (height, width, 3) uint8 rgb; a camera without an image stays black."""
        picture = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        x = 0
        for name, (width, height) in self._sizes.items():
            if name in images:
                image = images[name]
                is_same = image.shape[:2] == (height, width)
                picture[:height, x : x + width] = image if is_same else cv2.resize(image, (width, height))
            x += width
        self._write(picture, caption)
        return picture

    def _write(self, picture: ImageArray, caption: str) -> None:
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.55
        (width, height), _ = cv2.getTextSize(caption, font, scale, 1)
        scale *= min(1.0, (self.width - 2 * _MARGIN) / max(1, width))
        baseline = self.height - (_CAPTION_HEIGHT - height) // 2
        cv2.putText(picture, caption, (_MARGIN, baseline), font, scale, (255, 255, 255), 1, cv2.LINE_AA)


def caption(task: str, time_s: float, state: str) -> str:
    """The line below the images."""
    return f"{task}   {time_s:5.1f} s   {state}"


class VideoWriter:
    """Writes an mp4 in a thread of its own. `write` never waits: where the encoder lags, the oldest frames are dropped;
    unless it is patient, for videos of what is over.

    Dropped frames leave their time to the frame before, so that the video keeps its pace. Use it as a context manager,
    or call `close`. A video without a frame leaves no file.

    Attributes:
        path: of the video.
        codec: h264 by libx264 where this PyAV has it, else mpeg4.
    """

    def __init__(self, path: Path, fps: float, *, is_patient: bool = False) -> None:
        """Starts the thread.

        Args:
            path: ends with .mp4; folders above it are made.
            fps: frames per second of what `write` is given.
            is_patient: whether `write` waits for the encoder, so that no frame is dropped.

        Raises:
            MissingDependencyError: without PyAV.
            ValueError: if fps isn't positive.
        """
        try:
            import av
        except ImportError as error:
            raise MissingDependencyError("PyAV", "videos", "python -m pip install av") from error
        if not fps > 0.0:
            raise ValueError(f"fps is {fps}, it has to be positive")
        self.path = path
        self.codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._fps = Fraction(fps).limit_denominator(1000)
        self._is_patient = is_patient
        self._frames: deque[_Frame] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._given = self._dropped = self._written = 0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"video {path.name}", daemon=True)
        self._thread.start()

    @property
    def frames_written(self) -> int:
        return self._written

    @property
    def frames_dropped(self) -> int:
        return self._dropped

    def write(self, images: Mapping[str, ImageArray], caption: str) -> None:
        """Takes a frame; at once, whatever the encoder does, unless it is patient.

        After a failure frames are dropped, and `close` says why.

        Args:
            images: (height, width, 3) uint8 rgb by camera, not written to afterwards; the first call settles which
                cameras there are.
            caption: the line below them; OpenCV before 5 has only ASCII.
        """
        with self._changed:
            if self._is_closing:
                raise ValueError(f"{self.path} is closed")
            if self._is_patient:
                self._changed.wait_for(lambda: len(self._frames) < _QUEUE or self._error is not None)
            if len(self._frames) == _QUEUE or self._error is not None:
                self._dropped += 1
                if self._frames:
                    self._frames.popleft()
            if self._error is None:
                self._frames.append(_Frame(self._given, dict(images), caption))
            self._given += 1
            self._changed.notify()

    def close(self) -> None:
        """Waits until all frames are written.

        Raises:
            VideoError: if the video couldn't be written; there is no file then.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            mend = "check the disk's free space and the folder's permissions"
            raise VideoError(f"video {self.path} could not be written ({error}); {mend}") from error

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        # What went wrong in the block matters more than its video.
        with contextlib.suppress(VideoError) if kind is not None else contextlib.nullcontext():
            self.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)  # This thread alone, on Linux.
        try:
            frame = self._next()
            if frame is not None:
                with whole_file(self.path) as partial:
                    self._encode(partial, frame)
        except Exception as error:  # Handed to the thread that calls `close`.
            with self._changed:
                self._error = error
                self._dropped += len(self._frames)
                self._frames.clear()

    def _encode(self, path: Path, frame: _Frame | None) -> None:
        import av

        if frame is None or not frame.images:
            raise ValueError("the first frame has no image")
        composer = FrameComposer(frame.images)
        options = {"preset": "veryfast", "crf": "23"} if self.codec == "libx264" else {"qscale": "4"}
        with av.open(str(path), "w", format="mp4") as container:
            stream: Any = container.add_stream(self.codec, rate=self._fps, options=options)
            stream.width, stream.height, stream.pix_fmt = composer.width, composer.height, "yuv420p"
            stream.codec_context.thread_count = 1
            while frame is not None:
                picture = av.VideoFrame.from_ndarray(composer.compose(frame.images, frame.caption), format="rgb24")
                picture.pts, picture.time_base = frame.index, 1 / self._fps
                container.mux(stream.encode(picture))
                self._written += 1
                frame = self._next()
            container.mux(stream.encode(None))

    def _next(self) -> _Frame | None:
        """The oldest frame, waiting for it; None when there won't be another."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._is_closing)
            frame = self._frames.popleft() if self._frames else None
            self._changed.notify()
            return frame


def _even(pixels: int) -> int:
    """yuv420p halves both sides."""
    return pixels + pixels % 2
