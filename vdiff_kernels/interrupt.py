"""Ctrl-C before a command of `vdiff` begins, whose imports take seconds: one line and status 130, not a traceback."""

import os
import signal
import sys

STATUS = 130  # 128 + SIGINT, as shells have it.


def starts_command() -> bool:
    """Whether this process is `vdiff`, or `python -m vdiff_kernels.cli`, for which Python imports this package first."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return program == "vdiff" or program == "-m" and "vdiff_kernels.cli" in sys.orig_argv


class ending_quietly:
    """A context in which Ctrl-C ends the process at once. A KeyboardInterrupt would not do: extension modules that are being
    imported turn it into errors of their own. Leaves a SIGINT alone that is ignored, as in the background of a shell, or handled.
    """

    def __init__(self, wanted: bool = True):
        self.wanted = wanted and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def __enter__(self):
        try:
            if self.wanted:
                signal.signal(signal.SIGINT, _end)
        except ValueError:  # not in the main thread, which alone gets signals
            self.wanted = False

    def __exit__(self, *_):
        if self.wanted:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def raise_again() -> None:
    """Within `ending_quietly`: Ctrl-C raises KeyboardInterrupt from here on."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_):
    os.write(2, b"vdiff: interrupted\n")
    os._exit(STATUS)
