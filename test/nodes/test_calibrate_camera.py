"""`vla-ros calibrate camera` on a live topic: it takes a view where the board stands still, sharp and somewhere new."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from board_camera import SHOWN, BoardCamera, look_at
from calibrate_call import calibrate
from sensor_msgs.msg import Image

from vla_ros.calibration.boards import DEFAULT, parse_board
from vla_ros.contract import load_rig
from vla_ros.nodes import image_messages
from vla_ros.types import CameraModel

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.lengthy]

K = np.array([[452.0, 0.0, 244.0], [0.0, 449.0, 176.0], [0.0, 0.0, 1.0]])
BOARD = parse_board(DEFAULT)


def test_camera_is_guided_through_the_views_of_a_live_topic(make_peer, tmp_path: Path) -> None:
    artist, rng = BoardCamera(CameraModel(480, 360, K, (-0.2, 0.05, 0.0, 0.0)), samples=2), np.random.default_rng(0)
    pictures = [artist.take(BOARD, look_at(BOARD, np.array(w), np.array(tilt), 0.1), rng) for w, tilt in SHOWN]
    blurred = artist.take(BOARD, look_at(BOARD, np.array([0.0, 0.0, 0.4]), np.array([0.1, 0.1])), rng, blur_px=4.0)
    mount = {"parent": "panda_link0", "frame": "eye", "position_m": [0.0, 0.0, 1.0], "rpy_rad": [0.0, 0.0, 0.0]}
    camera = {
        "topic": "camera/eye/image",
        "width": 480,
        "height": 360,
        "fovy_rad": 0.8,
        "rate_hz": 10.0,
        "mount": mount,
    }
    (tmp_path / "cell.yaml").write_text(yaml.safe_dump({"name": "cell", "robot": "panda", "cameras": {"eye": camera}}))
    peer = make_peer("camera")
    images, is_over = peer.speak(Image, "camera/eye/image"), threading.Event()

    def show() -> None:
        # As a hand does: a while in each place, blurred on the way.
        for picture in itertools.cycle(pictures):
            for frame in (blurred, *[picture] * 6):
                if is_over.wait(0.1):
                    return
                images.publish(image_messages.to_image(frame, peer.now_ns(), "eye"))

    thread = threading.Thread(target=show)
    thread.start()
    try:
        code, found, told = calibrate(tmp_path, "camera", "--rig", "cell.yaml", "--seconds", "60")
    finally:
        is_over.set()
        thread.join()
    assert code == 0, (found, told)
    assert "missing: " in told
    assert "upper left" in told
    new = load_rig(str(tmp_path / "cell.calibrated.yaml")).cameras["eye"]
    assert new.K is not None
    np.testing.assert_allclose(new.K, K.flatten(), rtol=0.01, atol=2.5)
    # No view was taken twice, and none on the way.
    assert 10 <= len(found["views"]) <= len(SHOWN)
