"""Signals as a wish to end: many of them, from another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
# Signals that come while a handler runs interrupt it; with a threading.Event in the flag's place this never ends.
LISTENER = """
import signal
from vla_ros.stopping import SignalFlag

flag, count = SignalFlag(), 0

def end(_number, _frame):
    global count
    flag.set()
    count += 1

signal.signal(signal.SIGUSR1, end)
print("ready", flush=True)
while count < 500:
    pass
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
print(flag.is_set())
"""


def test_flag_is_set_by_handlers_that_interrupt_each_other() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENER], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        give_up_s = time.monotonic() + 40.0
        while child.poll() is None and time.monotonic() < give_up_s:
            os.kill(child.pid, signal.SIGUSR1)
        child.kill()
        assert child.stdout.read() == "True\n"
