"""Handle the errors of a loader's workers as one line in the notebook, and measure how long steps wait for data.

A worker cannot raise a user's error without a traceback around it, so it returns the error in place of a sample. A
worker that dies or hangs is an error of the machine.
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
"""The number of bad samples in a row after which more than single files must be wrong."""

MOST_NAMES = 4
"""The most images named of those that a worker may have been reading when it died."""

BROKEN = (ConnectionError, EOFError, FileNotFoundError)
"""The errors of the socket between a worker and the main process after the worker has died."""


class CheckedSamples(Dataset):
    """Samples with their warnings; with `skip`, the next good sample replaces a bad one."""

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
        """Return image, mask and a warning or "", or the error for `Batches` to raise."""
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
        return InputError(f"{error}; and {MOST_REPLACEMENTS} more bad samples in a row, too many to skip")


def collate(samples: list[tuple[Tensor, Tensor, str] | UserError]) -> tuple[Tensor, Tensor, list[str]] | UserError:
    """Join samples to a batch, or return the first error among them."""
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    image, mask = default_collate([sample[:2] for sample in samples])
    return image, mask, [sample[2] for sample in samples if sample[2]]


def read_batch(samples: CheckedSamples, keys: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Return the batch of these samples, read in this process: the same bytes each time, while the files are the same.

    Raises the error of a sample that cannot be read.
    """
    batch = collate([samples[key] for key in keys])
    if isinstance(batch, UserError):
        raise batch
    return batch[0], batch[1]


class Batches:
    """The batches of a loader, image float (N,3,h,w) and mask int64 (N,h,w), with one-line errors.

    For the last pass, `waited` is the time spent waiting for batches in seconds, and `taken` their number.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader, self.sampler, self.waited, self.taken = loader, loader.sampler, 0.0, 0
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def samples(self) -> Dataset:
        """The samples that are batched."""
        return self.loader.dataset.samples

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.waited, self.taken, batches, batch = 0.0, 0, None, None
        try:
            while True:
                began = time.monotonic()
                with explain_worker_errors(self.loader.timeout, self.next_names, receiving=self.loader.num_workers > 0):
                    batches = iter(self.loader) if batches is None else batches
                    batch = next(batches, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                if isinstance(batch, UserError):
                    raise batch
                self._warn(batch[2])
                self.taken += 1
                yield batch[0], batch[1]
        except UserError as error:
            self.close(at_once=error is not batch)  # a hanging worker would not end by itself
            raise

    def next_names(self) -> list[str]:
        """Return the names of the images in the batch after the last one taken."""
        keys = next(islice(self.loader.batch_sampler, self.taken, None), ())
        return [self.loader.dataset.name(key) for key in keys]

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, which otherwise wait for the next pass; that one then starts new workers.

        torch has no public way. The garbage collector ends them, too, but may close their queues first, and then blocks
        whatever is running for ten seconds.
        """
        iterator, self.loader._iterator = self.loader._iterator, None
        if iterator is None:  # torch keeps only the iterators that have workers
            return
        with suppress(RuntimeError):  # torch reports the workers that are killed here
            for worker in iterator._workers if at_once else ():
                worker.kill()
            iterator._shutdown_workers()

    def _warn(self, warnings: list[str]) -> None:
        for warning in warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                print(f"warning: {warning}; another sample takes its place", flush=True)


def ignore_stop_signals(worker: int) -> None:
    """Let a worker survive the signals that stop the whole process group, so that the main process can save first.

    Ctrl-C, and clusters that end a job, signal every process of it; a worker that died of it would end the main process
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
def explain_worker_errors(
    timeout: float = 0, next_names: Callable[[], Sequence[str]] = list, *, receiving: bool = False
) -> Iterator[None]:
    """Translate torch's errors for a dead or hanging worker into MachineError, which lists `next_names`.

    A dead worker is noticed by a signal, so the error may be raised anywhere while batches are used; while
    `receiving` a batch, also by a broken connection.
    """
    faults = (RuntimeError, *BROKEN) if receiving else RuntimeError
    try:
        yield
    except faults as error:
        message = _explanation(error, timeout)
        if message is None:
            raise
        names = next_names()
        listed = ", ".join([*names[:MOST_NAMES], *(["..."] if len(names) > MOST_NAMES else [])])
        raise MachineError(message + (f". The next images to be read were {listed}" if names else "")) from error


def _explanation(error: Exception, timeout: float) -> str | None:
    text = f"{error} {error.__cause__ or ''}"
    if "DataLoader timed out" in text:
        return (
            f"the loader's workers returned nothing for {timeout:g} s; a disk or a network may hang. Run again to "
            "resume from the last checkpoint, with workers=0 to see where it hangs, or a larger loader_timeout"
        )
    raised_by_sample = "in DataLoader worker process" in text  # the worker is still alive
    died = re.search(r"DataLoader worker .*(killed by signal|exited unexpectedly)", text)
    if died or (isinstance(error, BROKEN) and not raised_by_sample) or "No space left on device" in text:
        how = re.search(r"killed by signal: ([^.]*)\.", text)
        number = next((n for n in signal.Signals if how and signal.strsignal(n) == how.group(1)), None)
        return (
            f"a loader worker died{f' (signal {number:d})' if number else ''}, probably for lack of memory or of space "
            "in /dev/shm; run again to resume from the last checkpoint, with fewer workers or a smaller batch_size"
        )
    return None
