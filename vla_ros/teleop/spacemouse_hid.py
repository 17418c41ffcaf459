"""3Dconnexion's devices by their HID reports, without a driver.

Report 1 has the translation (with newer receivers, in 13 bytes, the rotation behind it), report 2 the rotation, report
3 the buttons; numbers are 16 bits, little endian, some 350 at most. Their axes are right, towards the operator and
down, of which forward, left and up are made as spacenavd does.

Source: spacenavd, src/cfgfile.c (default axis map and inversion); the Linux driver hid-3dconnexion's report layout.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from vla_ros.errors import SensorError

FULL_SCALE = 350.0
"""Count that stands for 1."""

_VENDORS = (0x256F, 0x046D)
# Logitech's number was 3Dconnexion's, too, for these products alone.
_LOGITECH_PRODUCTS = range(0xC603, 0xC640)
_BUTTONS = 16


@dataclass(frozen=True)
class HidState:
    """What the device said last.

    Attributes:
        counts: x, y, z, rx, ry, rz as in the reports.
        buttons: bits.
    """

    counts: tuple[int, ...] = (0,) * 6
    buttons: int = 0

    def axes(self, full_scale: float) -> tuple[float, ...]:
        """Forward, left, up, and the turns about them, in [-1, 1]."""
        x, y, z, rx, ry, rz = (max(-1.0, min(1.0, count / full_scale)) for count in self.counts)
        return -y, -x, -z, -ry, -rx, -rz

    def button_list(self) -> tuple[int, ...]:
        """0 or 1 each."""
        return tuple(self.buttons >> bit & 1 for bit in range(_BUTTONS))


def parse(state: HidState, report: bytes) -> HidState:
    """The state after a report; one that isn't understood changes nothing."""
    if len(report) < 2:
        return state
    number, body = report[0], report[1:]
    if number == 1 and len(body) >= 12:
        return replace(state, counts=struct.unpack_from("<6h", body))
    if number == 1 and len(body) >= 6:
        return replace(state, counts=(*struct.unpack_from("<3h", body), *state.counts[3:]))
    if number == 2 and len(body) >= 6:
        return replace(state, counts=(*state.counts[:3], *struct.unpack_from("<3h", body)))
    if number == 3:
        return replace(state, buttons=int.from_bytes(body[:2], "little"))
    return state


def find_device(root: Path = Path("/")) -> Path:
    """The first 3Dconnexion device that is plugged in.

    Args:
        root: of the file system.

    Raises:
        SensorError: if there is none.
    """
    for folder in sorted((root / "sys/class/hidraw").glob("hidraw*")):
        try:
            text = (folder / "device/uevent").read_text(encoding="utf-8")
        except OSError:
            continue
        words = next((line[7:].split(":") for line in text.splitlines() if line.startswith("HID_ID=")), [])
        if len(words) != 3:
            continue
        vendor, product = int(words[1], 16), int(words[2], 16)
        if vendor in _VENDORS and (vendor == _VENDORS[0] or product in _LOGITECH_PRODUCTS):
            return root / "dev" / folder.name
    raise SensorError("no 3Dconnexion device among /sys/class/hidraw/*; is it plugged in, or paired?")


class HidReader:
    """Reads reports as they come, without waiting.

    Args:
        path: of the device.

    Raises:
        SensorError: if it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.state = path, HidState()
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            rule = 'a udev rule like KERNEL=="hidraw*", ATTRS{idVendor}=="256f", TAG+="uaccess" lets you read it'
            raise SensorError(f"{path} can't be opened ({error.strerror}); {rule}") from error

    def take(self) -> list[HidState]:
        """The states after each report that has come, oldest first.

        Raises:
            SensorError: if the device has gone.
        """
        states: list[HidState] = []
        while True:
            try:
                report = os.read(self._file, 64)
            except BlockingIOError:
                return states
            except OSError as error:
                raise SensorError(f"{self._path} is gone ({error.strerror}); plug it in and start again") from error
            if not report:
                return states
            self.state = parse(self.state, report)
            states.append(self.state)

    def close(self) -> None:
        """Lets go of the device."""
        os.close(self._file)
