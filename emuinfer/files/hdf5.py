"""HDF5 files: written whole or not at all, even on a full disk; and what a dataset claims, compared with what there is of it."""

import contextlib
import io
import math
import os

from ..errors import EmuinferError
from .reading import DEFLATED, size_text
from .writing import written_whole

_FEWEST = 8  # bytes of the file for each chunk of a dataset, whatever it holds


@contextlib.contextmanager
def written_hdf5(path, error=EmuinferError, **more):
    """An open `h5py.File` to write to, which gets the name `path` if the block succeeds; see `written_whole`."""
    import h5py

    with written_whole(path, error, **more) as temporary, _Patient(temporary, "w+") as written:
        with h5py.File(written, "w") as file:
            yield file
        if written.failure is not None:
            raise written.failure
        os.fsync(written.fileno())


class _Patient(io.FileIO):
    """A file that keeps an error of the disk for later, and in memory what is written from then on.

    HDF5 brings the process down where it cannot write, or does not read what it has written.
    """

    PAGE = 4096

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.failure, self._pages = None, {}

    def write(self, content):
        content, start, done = memoryview(content), self.tell(), 0
        try:
            while self.failure is None and done < len(content):
                done += super().write(content[done:])
        except OSError as error:
            self.failure = error
        for at, part in self._parts(start + done, content[done:]):
            self._page(at // self.PAGE)[at % self.PAGE :][: len(part)] = part
        return len(content)

    def readinto(self, buffer):
        start = self.tell()
        read = super().readinto(buffer)
        if self.failure is None:
            return read
        for at, part in self._parts(start, memoryview(buffer)):
            part[:] = self._page(at // self.PAGE)[at % self.PAGE :][: len(part)]
        return len(buffer)

    def _parts(self, at, content):
        """Pieces of `content`, each within a page, and where they begin."""
        while len(content):
            part, content = content[: self.PAGE - at % self.PAGE], content[self.PAGE - at % self.PAGE :]
            yield at, part
            at += len(part)

    def _page(self, number):
        if number not in self._pages:
            self.seek(number * self.PAGE)
            self._pages[number] = memoryview(bytearray(super().read(self.PAGE).ljust(self.PAGE, b"\0")))
        return self._pages[number]

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size


def check_dataset(dataset, path, error: type[Exception] = EmuinferError, *, whole: bool = True) -> None:
    """Raise `error` where a dataset claims more than the file at `path` stores of it, or is stored in another file.

    HDF5 gives whatever size a header claims, and fills in what is not there. With `whole` all of it must be there, otherwise as
    much as compression can explain.
    """
    remedy = "Restore the file from a copy, or ask for it again."
    name = dataset.name
    if dataset.file.filename != os.fspath(path) and not os.path.samefile(dataset.file.filename, path):
        raise error(f"{path}: {name} is a link to another file, {dataset.file.filename}. Copy it into one file.")
    if dataset.is_virtual or dataset.external:
        raise error(f"{path}: {name} is stored in other files. Copy it into one file.")
    claimed, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if not claimed:
        return
    if dataset.chunks is None or not whole:
        stored *= 1 if whole else DEFLATED
        there = claimed <= stored and dataset.id.get_storage_size() <= os.path.getsize(path)
    else:
        chunks = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks))
        there = chunks * _FEWEST <= os.path.getsize(path) and dataset.id.get_num_chunks() == chunks
        there = there and (bool(dataset.compression) or claimed <= stored)
    if not there:
        raise error(
            f"{path} is damaged: {name} claims the shape {dataset.shape}, {size_text(claimed)}, and the file of "
            f"{size_text(os.path.getsize(path))} has less of it. {remedy}"
        )
