"""Worker error handling of the loaders: one line in the notebook for a worker's fault, and each step's wait for data.

A worker cannot raise a user's error without a traceback around it, so it hands the error over in place of a sample. A
worker that dies, or that never answers, is an error of the machine.
"""

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from types import FrameType

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from cityscapes.errors import InputError, MachineError, UserError

MOST_REPLACEMENTS = 10
"""After so many bad samples in a row, more than single files must be wrong."""

MOST_NAMES = 4
"""So many images are named of those that a worker may have been at when it died."""

BROKEN = (ConnectionError, EOFError, FileNotFoundError)
"""What the socket between a worker and the main process raises when the worker has gone."""


class CarefulSamples(Dataset):
    """Samples and what is to be told of them; with `skip`, the next good one stands in for a bad one."""

    def __init__(self, samples: Dataset, *, skip: bool = False) -> None:
        self.samples, self.skip = samples, skip

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, key: int | tuple[int, int]) -> str:
        """Return the name of a sample's image."""
        if isinstance(self.samples, Subset):
            return self.samples.dataset.name(self.samples.indices[key])
        return self.samples.name(key)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor, str] | UserError:
        """Return image, mask and a warning or "", or the error that `Batches` shall raise."""
        try:
            return *self.samples[key], ""
        except InputError as error:
            return self._replacement(*key, error) if self.skip else error
        except UserError as error:
            return error

    def _replacement(self, epoch: int, index: int, error: InputError) -> tuple[Tensor, Tensor, str] | UserError:
        for step in range(1, MOST_REPLACEMENTS + 1):
            try:
                return *self.samples[epoch, (index + step) % len(self)], str(error)
            except InputError:
                continue
        return InputError(f"{error}; and {MOST_REPLACEMENTS} more samples in a row are bad, too many to be skipped")


def collate(samples: list[tuple[Tensor, Tensor, str] | UserError]) -> tuple[Tensor, Tensor, list[str]] | UserError:
    """Join samples to a batch, or return the first error among them."""
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    image, mask = default_collate([sample[:2] for sample in samples])
    return image, mask, [sample[2] for sample in samples if sample[2]]


class Batches:
    """The batches of a loader, image float (N,3,h,w) and mask int64 (N,h,w), its faults told in one line.

    Of the last pass, `waited` is the time in seconds that was spent waiting for batches, and `taken` their number.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader, self.sampler, self.waited, self.taken = loader, loader.sampler, 0.0, 0
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.waited, self.taken, batches, batch = 0.0, 0, None, None
        try:
            while True:
                began = time.monotonic()
                with worker_faults(self.loader.timeout, self.next_names, handing_over=self.loader.num_workers > 0):
                    batches = iter(self.loader) if batches is None else batches
                    batch = next(batches, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                if isinstance(batch, UserError):
                    raise batch
                self._tell(batch[2])
                self.taken += 1
                yield batch[0], batch[1]
        except UserError as error:
            self.close(at_once=error is not batch)  # a worker that hangs does not hear that it shall end
            raise

    def next_names(self) -> list[str]:
        """Return the names of the images in the batch after those that were taken."""
        keys = next(islice(self.loader.batch_sampler, self.taken, None), ())
        return [self.loader.dataset.name(key) for key in keys]

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, which otherwise wait for the next pass; a pass after that starts new ones.

        torch has no public way. The garbage collector ends them, too, but may close their queues first, and then
        blocks for ten seconds whatever is at work in that moment.
        """
        iterator, self.loader._iterator = self.loader._iterator, None
        with suppress(RuntimeError):  # torch tells of the workers that are killed here
            for worker in getattr(iterator, "_workers", ()) if at_once else ():
                worker.kill()
            if iterator is not None:
                iterator._shutdown_workers()

    def _tell(self, warnings: list[str]) -> None:
        for warning in warnings:
            if warning not in self._told:
                self._told.add(warning)
                print(f"warning: {warning}; another sample takes its place", flush=True)


def leave_stopping_to_main(worker: int) -> None:
    """Let a worker outlive what asks the whole group to stop, so that the main process can save first.

    Ctrl-C, and clusters that end a job, signal every process of it; a worker that died of that would end the main one
    in the middle of a step. A second SIGTERM, or half a minute, ends a worker that the main process has not ended.
    """

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(30)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, note)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def worker_faults(
    timeout: float = 0, next_names: Callable[[], Sequence[str]] = list, *, handing_over: bool = False
) -> Iterator[None]:
    """Turn what torch raises for a worker that died or that hangs into MachineError, which tells `next_names`.

    A dead worker is noticed by a signal, so that the error may come up anywhere while batches are used; while a worker
    is `handing_over` a batch, also by its connection, which breaks.
    """
    faults = (RuntimeError, *BROKEN) if handing_over else RuntimeError
    try:
        yield
    except faults as error:
        message = _explanation(error, timeout)
        if message is None:
            raise
        names = next_names()
        told = ", ".join([*names[:MOST_NAMES], *(["..."] if len(names) > MOST_NAMES else [])])
        raise MachineError(message + (f". The next to be read were {told}" if names else "")) from error


def _explanation(error: Exception, timeout: float) -> str | None:
    text = f"{error} {error.__cause__ or ''}"
    if "DataLoader timed out" in text:
        return (
            f"the loader's workers gave nothing for {timeout:g} s; a disk or a network may hang. Run again to go on "
            "from the last checkpoint, with workers=0 to see where it hangs, or a larger loader_timeout"
        )
    raised_by_sample = "in DataLoader worker process" in text  # which is no end of the worker
    died = re.search(r"DataLoader worker .*(killed by signal|exited unexpectedly)", text)
    if died or (isinstance(error, BROKEN) and not raised_by_sample) or "No space left on device" in text:
        how = re.search(r"killed by signal: ([^.]*)\.", text)
        number = next((n for n in signal.Signals if how and signal.strsignal(n) == how.group(1)), None)
        return (
            f"a loader worker died{f' (signal {number:d})' if number else ''}, likely for lack of memory or of space "
            "in /dev/shm; run again to go on from the last checkpoint, with fewer workers or a smaller batch_size"
        )
    return None
