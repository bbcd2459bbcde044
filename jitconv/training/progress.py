"""What ``jitconv train`` shows while it runs, and how Ctrl-C stops it."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from .extras import needs_extra
from .trainer import Epoch, Step


class Progress:
    """A bar for each epoch, with the loss and images a second, and a line after it.

    Parameters
    ----------
    epochs : int
        The number of the last epoch.
    images : int
        In an epoch.
    position : int
        Images of the first epoch that were seen before.
    """

    def __init__(self, epochs: int, images: int, position: int = 0) -> None:
        self._epochs, self._images, self._position = epochs, images, position
        self._bar: Any = None

    @staticmethod
    def check() -> None:
        """Raise ImportError now, not later, if tqdm is missing."""
        with needs_extra("tqdm", "progress bars"):
            import tqdm  # noqa: F401

    def _write(self, text: str, file: Any) -> None:
        from tqdm import tqdm

        tqdm.write(text, file=file)
        file.flush()

    def _open(self, epoch: int) -> None:
        from tqdm import tqdm

        size = shutil.get_terminal_size()  # where it is unknown, 80x24; tqdm by itself would draw nothing
        self._bar = tqdm(
            total=self._images,
            initial=self._position,
            desc=f"epoch {epoch}/{self._epochs}",
            unit=" images",
            ncols=size.columns,
            nrows=size.lines,
            leave=False,
            disable=None,  # no bar where there is no terminal
        )
        self._position = 0

    def step(self, step: Step) -> None:
        """Show a step."""
        if self._bar is None:
            self._open(step.epoch)
        self._bar.set_postfix_str(f"loss {step.loss:.4f}", refresh=False)
        self._bar.update(step.batch)

    def epoch(self, epoch: Epoch) -> None:
        """Show a finished epoch."""
        self._close()
        accuracy = "" if epoch.accuracy is None else f"  test accuracy {epoch.accuracy:.1%}"
        rate = "" if epoch.images_per_second is None else f"  {epoch.images_per_second:,.0f} images/s"
        width = len(str(self._epochs))
        self._write(f"epoch {epoch.number:{width}}/{self._epochs}  loss {epoch.loss:.4f}{accuracy}{rate}", sys.stdout)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class StopRequest:
    """Turns the first Ctrl-C into a request, obeyed between two steps, where the weights can be saved.

    The second stops at once. Outside the main thread, where signals do not arrive, it does nothing.

    Parameters
    ----------
    tells : bool
        Say so on stderr.

    Attributes
    ----------
    asked : bool
        Whether there is a request.
    forced : bool
        Whether a step was cut short.
    """

    def __init__(self, tells: bool = True) -> None:
        self.asked = False
        self.forced = False
        self._tells = tells
        self._before: Any = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.forced = True
            raise KeyboardInterrupt
        self.asked = True
        if self._tells:
            print("\nstopping after this step (Ctrl-C again: at once, without saving)", file=sys.stderr, flush=True)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
