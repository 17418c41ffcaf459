"""Images as PNG or JPEG and back; rgb on our side."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from vla_ros.errors import DatasetError
from vla_ros.types import ImageArray


def encode(image: ImageArray, encoding: str, quality: int) -> bytes:
    """An image's file.

    Args:
        image: (height, width, 3) uint8 rgb.
        encoding: png or jpeg.
        quality: of a JPEG, to 100.
    """
    # PNG at its fastest: twice as much effort saves a hundredth.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if encoding == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    is_done, data = cv2.imencode(f".{encoding}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    if not is_done:
        raise DatasetError(f"OpenCV can't write {encoding}; choose the other encoding of images")
    return data.tobytes()


def encode_all(
    images: Iterable[tuple[str, int, ImageArray]], encoding: str, quality: int
) -> Iterator[tuple[str, bytes]]:
    """Images' files in the images' order, encoded on all cores; a few images at a time are in memory.

    Args:
        images: name, frame and image each, as `read_images` gives them.
        encoding: see `encode`.
        quality: see `encode`.
    """
    workers = os.cpu_count() or 1
    waiting: deque[tuple[str, Future[bytes]]] = deque()
    with ThreadPoolExecutor(workers, "encoding images") as pool:
        for name, _, image in images:
            waiting.append((name, pool.submit(encode, image, encoding, quality)))
            if len(waiting) > 2 * workers:
                first, done = waiting.popleft()
                yield first, done.result()
        for name, last in waiting:
            yield name, last.result()


def decode(data: memoryview, where: str) -> ImageArray:
    """The image in a file of either kind, (height, width, 3) uint8 rgb.

    Raises:
        DatasetError: if there is none in it.
    """
    # As TensorFlow does, a camera's note on how it was held is passed over.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if len(data) else None
    if image is None:
        raise DatasetError(f"{where}: holds no image ({len(data)} bytes); leave this episode out")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
