"""`vla-ros calibrate camera`: intrinsics and lens from views of a board."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla_ros.calibration.boards import Board, Sighting, parse_board
from vla_ros.calibration.camera_info import camera_info_text
from vla_ros.calibration.intrinsics import LENSES, Intrinsics, calibrate_intrinsics
from vla_ros.calibration.verdict import CalibrateError
from vla_ros.calibration.views import MIN_VIEWS, View, look, missing, moved_px, same_as
from vla_ros.commands.calibrate.options import (
    add_board,
    add_camera,
    add_stack,
    add_writing,
    chosen_camera,
    new_parser,
    node_module,
    rig_of,
    rig_word,
)
from vla_ros.commands.calibrate.telling import Guide, say, tell
from vla_ros.commands.calibrate.writing import destination, rounded, write
from vla_ros.commands.stack_options import stack_words
from vla_ros.config import build
from vla_ros.contract import Rig, RigCamera
from vla_ros.files import whole_file
from vla_ros.geometry.cameras import calibrated_camera
from vla_ros.stopping import stop_signals
from vla_ros.types import CameraModel, ImageArray

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# px from one image to the next, in an image 640 px wide.
_STILL_PX = 1.0
_EPILOG = f"""\
Hold the board before the camera, or the camera over the board, and move to where the text says; a view is taken by
itself when the board stands still, is sharp and is somewhere new. Ctrl-C ends early. At least {MIN_VIEWS} views, in all
parts of the image, tilted every way, once near. Every fourth view is left out of the first fit and judges it.

example:
  vla-ros calibrate camera --rig my_cell.yaml --camera wrist
  vla-ros calibrate camera --rig my_cell.yaml --camera base --images photos/ --board apriltag:4x3:60:48
"""


def add_parser(subjects: Any) -> None:
    """Adds the subcommand."""
    parser = new_parser(subjects, "camera", "find a camera's intrinsics and lens", _EPILOG)
    add_camera(parser)
    add_board(parser)
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of images, in the place of the live topic")
    parser.add_argument("--views", type=int, default=MIN_VIEWS, metavar="N", help="at least (default %(default)s)")
    lenses = ", ".join(map(str, LENSES))
    parser.add_argument("--lens", type=int, choices=LENSES, help=f"coefficients: {lenses} (default the fewest that do)")
    parser.add_argument("--seconds", type=float, default=300.0, metavar="S", help="at most (default %(default)g)")
    parser.add_argument(
        "--camera-info", type=Path, metavar="FILE", help="write it for a driver, too (its camera_info_url)"
    )
    add_stack(parser, has_robot=False)
    add_writing(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrates; 0 if the verdict is good.

    Raises:
        VlaRosError: if it can't be done.
    """
    rig, board = rig_of(args), parse_board(args.board)
    name, camera = chosen_camera(rig, args.camera)
    to = destination("rigs", rig_word(args), args.out, args.write)
    if camera.source.undistort and args.images is None:
        raise CalibrateError(f"camera {name}", "its images are rectified already", "set source.undistort: false first")
    guess = calibrated_camera(camera.width, camera.height, camera.fovy_rad, camera.K, camera.distortion)
    if args.images is not None:
        views, info = _views_of_folder(args.images, board, guess), None
    else:
        views, info = _live_views(args, name, camera, board, guess)
    found = calibrate_intrinsics(views, camera.width, camera.height, args.lens)
    values: dict[tuple[str, ...], Any] = {}
    if all(check.is_good for check in found.checks):
        K = found.camera.K.flatten()
        values[("cameras", name, "K")] = rounded(K, 3)
        values[("cameras", name, "distortion")] = rounded(found.camera.distortion, 6)
    written = [write(to, values, lambda data, where: build(Rig, data, where))] if values else []
    if values and args.camera_info is not None:
        with whole_file(args.camera_info) as partial:
            partial.write_text(camera_info_text(found.camera, name), encoding="utf-8")
    for view, rms in found.view_rms_px.items() if not args.is_json else ():
        print(f"    {view}: {rms:.3f} px{' (left out of the first fit)' if view in found.left_out else ''}")
    note = _info_note(found.camera, info, camera)
    if note:
        say(note)
    return tell(args, f"camera {name}", found.checks, {**_figures(found), "note": note}, written)


def _views_of_folder(folder: Path, board: Board, guess: CameraModel) -> list[View]:
    views: list[View] = []
    for name, image in _images(folder):
        height, width = image.shape[:2]
        if (width, height) != (guess.width, guess.height):
            problem = f"{width}x{height}, the rig says {guess.width}x{guess.height}"
            raise CalibrateError(name, problem, "take images of the rig's topic, in its size")
        _take(look(board, image, name, guess), name, views, guess)
    return views


def _images(folder: Path) -> Iterator[tuple[str, ImageArray]]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _ENDINGS)
    if not paths:
        raise CalibrateError(str(folder), f"no images ({', '.join(_ENDINGS)})", "name the folder that has them")
    for path in paths:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            say(f"{path.name}: can't be read; left out")
            continue
        yield path.name, np.ascontiguousarray(bgr[:, :, ::-1])


def _take(view: View | str, name: str, views: list[View], camera: CameraModel) -> bool:
    """Takes a view if it is good and new; says why not."""
    if isinstance(view, str):
        say(f"{name}: {view}; left out")
        return False
    twin = same_as(view, views, camera.width, camera.height)
    if twin is not None:
        say(f"{name}: the same as {twin.name}; left out")
        return False
    views.append(view)
    return True


def _live_views(
    args: argparse.Namespace, name: str, camera: RigCamera, board: Board, guess: CameraModel
) -> tuple[list[View], CameraModel | None]:
    nodes = node_module("camera")
    views: list[View] = []
    before: Sighting | None = None
    guide, still_px = Guide(), _STILL_PX * camera.width / 640.0
    with nodes.calibration_session(None, camera, words=stack_words(args)) as session, stop_signals() as is_over:
        session.wait_for(lambda: session.node.image is not None, args.timeout, f"image on {camera.topic}")
        end_s = time.monotonic() + args.seconds
        say(f"{name}: show it {board}; Ctrl-C ends")
        while not is_over() and time.monotonic() < end_s and (left := _left(views, camera, args.views)):
            session.turn()
            taken = session.node.take_image()
            if taken is None:
                continue
            view = look(board, taken[1], f"view {len(views) + 1}", guess)
            if isinstance(view, str):
                before = None
                guide(f"{view}; {len(views)} views, missing: {'; '.join(left)}")
                continue
            moved = float("nan") if before is None else moved_px(before, view.sighting)
            before = view.sighting
            if not moved <= still_px:
                guide(f"hold it still; {len(views)} views, missing: {'; '.join(left)}")
            elif (twin := same_as(view, views, camera.width, camera.height)) is not None:
                guide(f"as {twin.name}; move or tilt it. {len(views)} views, missing: {'; '.join(left)}")
            else:
                views.append(view)
                say(f"{view.name} taken; missing: {'; '.join(_left(views, camera, args.views)) or 'nothing'}")
        return views, session.node.info


def _left(views: list[View], camera: RigCamera, wanted: int) -> list[str]:
    return missing(views, camera.width, camera.height, wanted)


def _figures(found: Intrinsics) -> dict[str, Any]:
    return {
        "K": found.camera.K.flatten().tolist(),
        "distortion": list(found.camera.distortion),
        "rms_px": found.rms_px,
        "left_out_rms_px": found.left_out_rms_px,
        "focal_std": found.focal_std,
        "views": found.view_rms_px,
        "left_out": list(found.left_out),
    }


def _info_note(found: CameraModel, info: CameraModel | None, camera: RigCamera) -> str:
    """What to do where the images come with intrinsics of their own, which count more than the rig's."""
    if info is None or camera.source.kind not in ("driver", "topic"):
        return ""
    off = float(np.abs(info.K[[0, 1], [0, 1]] / found.K[[0, 1], [0, 1]] - 1.0).max())
    if off < 0.01:
        return ""
    return (
        f"the images' own camera_info has focal lengths {100 * off:.1f} % off these, and counts more than the rig: "
        "give the driver the new ones, too (--camera-info FILE, its camera_info_url), or have it publish none"
    )
