"""A board as a file to print, at its true size: PDF and PNG, with a bar of 100 mm to measure after printing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from vla_ros.calibration.boards import Board, draw_board
from vla_ros.calibration.verdict import CalibrateError
from vla_ros.files import whole_file
from vla_ros.types import ImageArray

MARGIN_M, BAR_M = 0.01, 0.1
_POINTS_M = 72.0 / 0.0254
_DPI = 600


def board_sheet(board: Board) -> tuple[ImageArray, float]:
    """The board on white with the bar below it: (h, w) uint8, and its pixels per m."""
    square_px = round(board.square_m * _DPI / 0.0254)
    per_m = square_px / board.square_m
    pattern = draw_board(board, square_px)
    margin, text_px = round(MARGIN_M * per_m), round(0.0035 * per_m)
    height, width = pattern.shape
    bar_px = round(BAR_M * per_m)
    sheet = np.full((height + 3 * margin, max(width, bar_px) + 2 * margin), 255, dtype=np.uint8)
    sheet[margin : margin + height, margin : margin + width] = pattern
    top = margin + height + margin // 2
    sheet[top : top + max(1, text_px // 5), margin : margin + bar_px] = 0
    for x in (margin, margin + bar_px - 1):
        sheet[top - text_px // 3 : top + text_px // 3, x] = 0
    words = f"{1e3 * BAR_M:g} mm   {board}   print at 100 %, on something flat"
    cv2.putText(sheet, words, (margin, top + 2 * text_px), cv2.FONT_HERSHEY_SIMPLEX, text_px / 22.0, 0, 3, cv2.LINE_AA)
    return sheet, per_m


def write_sheet(board: Board, path: Path) -> tuple[float, float]:
    """Writes a board to print; its sheet's width and height, m.

    Raises:
        CalibrateError: if the file is neither a PDF nor a PNG.
    """
    sheet, per_m = board_sheet(board)
    make = {".pdf": _pdf, ".png": _png}.get(path.suffix.lower())
    if make is None:
        raise CalibrateError(str(path), f"{path.suffix or 'no ending'} isn't known", "end it in .pdf or .png")
    with whole_file(path) as partial:
        partial.write_bytes(make(sheet, per_m))
    height, width = sheet.shape
    return width / per_m, height / per_m


def _png(sheet: ImageArray, per_m: float) -> bytes:
    """With its scale, which printers go by (chunk pHYs, pixels per metre). Source: W3C, PNG, 11.3.4.3."""
    data = bytes(cv2.imencode(".png", sheet)[1])
    scale = struct.pack(">IIB", round(per_m), round(per_m), 1)
    chunk = struct.pack(">I", len(scale)) + b"pHYs" + scale + struct.pack(">I", zlib.crc32(b"pHYs" + scale))
    after_header = 8 + 25
    return data[:after_header] + chunk + data[after_header:]


def _pdf(sheet: ImageArray, per_m: float) -> bytes:
    """One page as large as the sheet. Source: ISO 32000-1, 7.5 (file structure), 8.9 (images)."""
    height, width = sheet.shape
    wide, high = (round(_POINTS_M * side / per_m, 4) for side in (width, height))
    content = f"q {wide} 0 0 {high} 0 0 cm /Board Do Q".encode()
    pixels = zlib.compress(sheet.tobytes(), 6)
    image = (
        f"<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceGray "
        f"/BitsPerComponent 8 /Filter /FlateDecode /Length {len(pixels)} >>"
    )
    page = (
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {wide} {high}] /Contents 4 0 R "
        "/Resources << /XObject << /Board 5 0 R >> >> >>"
    )
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page.encode(),
        f"<< /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream",
        image.encode() + b"\nstream\n" + pixels + b"\nendstream",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    count = len(objects) + 1
    tail = f"trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n".encode()
    return out + f"xref\n0 {count}\n0000000000 65535 f \n".encode() + table + tail
