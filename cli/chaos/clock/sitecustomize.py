"""A wall clock that can be set wrong: Python runs this before a program when the folder is on PYTHONPATH.

`time.time` and `time.time_ns` are off by the seconds that stand in the file which MILLSTREAM_CHAOS_CLOCK names. libfaketime would
reach C code too, but its 0.9.10 makes `time.sleep` of Python 3.11 fail with EINVAL.
"""

import os
import time

_FILE = os.environ["MILLSTREAM_CHAOS_CLOCK"]
_LOOK_SECONDS = 0.2
_true_ns, _monotonic = time.time_ns, time.monotonic
_off_ns, _looked = 0, -1.0


def _time_ns() -> int:
    global _off_ns, _looked
    if _monotonic() - _looked > _LOOK_SECONDS:
        _looked = _monotonic()
        try:
            with open(_FILE) as file:
                _off_ns = int(file.read() or 0) * 1_000_000_000
        except OSError:
            _off_ns = 0
    return _true_ns() + _off_ns


time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1_000_000_000
