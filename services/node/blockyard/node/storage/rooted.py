"""`RootedStorage`: the Storage of `interface.storage` over directories opened once at start.

What must not live here: drivers, formats, the graph. The system calls that make it race-free are in `beneath`.

Rules:
1. A path is an absolute one beneath a root, or relative to the first root. Nothing else reaches the kernel.
2. `..` is refused in paths that are opened. In an image's reference to another (`relative_to_image`) it is folded
   as text, which is exact because no link is ever followed, and refused where it would climb over the root.
3. Only regular files, and block and SCSI generic devices that lie beneath a root. Everything is opened with
   O_NONBLOCK first, so that a FIFO cannot hold the caller, then looked at through the descriptor.
4. A message shows a path as the caller wrote it, or relative to its root; never what a root is called.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, NoReturn, Self

from blockyard.base.errors import (
    BlockError,
    FileExists,
    FileNotFound,
    FileReadOnly,
    InvalidArgument,
    IoError,
    NoSpace,
    PathDenied,
)
from blockyard.node.core.filenames import protocol_of
from blockyard.node.storage.beneath import Opener, best_opener

MAX_PATH_BYTES: Final = 4095
"""PATH_MAX less its NUL (include/uapi/linux/limits.h)."""
MAX_COMPONENT_BYTES: Final = 255
"""NAME_MAX of the same header."""
SCSI_GENERIC_MAJOR: Final = 21
"""Character devices /dev/sg* (include/uapi/linux/major.h). Others are not opened: opening alone can rewind a
tape."""
MAX_SHOWN: Final = 256
"""Characters of a refused path that an error carries: it may come out of a hostile image."""

_WHY_REFUSED: Final = {
    errno.ELOOP: "a component of it is a symbolic link",
    errno.EXDEV: "it leads outside its storage root",
    errno.ENAMETOOLONG: "it is too long",
    errno.EISDIR: "it is a directory",
    # What open answers for a socket, a FIFO without a reader, a device node without a device.
    errno.ENXIO: "it is neither a regular file nor a block device",
    errno.ENODEV: "it is neither a regular file nor a block device",
}
_NOT_WRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY)
_NO_TMPFILE: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
"""How a file system, or an old kernel, says that it has no O_TMPFILE (open(2))."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Root(NamedTuple):
    descriptor: int
    prefixes: tuple[tuple[str, ...], ...]
    """The components of its path, as configured and with links resolved."""


class _Place(NamedTuple):
    root: _Root
    components: tuple[str, ...]

    @property
    def shown(self) -> str:
        return "/".join(self.components)


class RootedStorage:
    """Storage beneath one or more directories. `opener` is chosen by what the kernel has; tests name one.

    `temporary_directory` takes files without a name; by default the first root.
    """

    def __init__(
        self, roots: Iterable[str | Path], opener: Opener | None = None, temporary_directory: str | Path = ""
    ) -> None:
        self._roots: list[_Root] = []
        self._temporary: _Root | None = None
        try:
            for root in roots:
                self._roots.append(_open_root(Path(root)))
            if not self._roots:
                raise InvalidArgument("storage_root", "at least one directory", "none")
            if temporary_directory:
                self._temporary = _open_root(Path(temporary_directory), "temporary_directory")
            self._opener = opener or best_opener(self._roots[0].descriptor)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._roots:
            os.close(self._roots.pop().descriptor)
        if self._temporary is not None:
            os.close(self._temporary.descriptor)
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """See `Storage.open`."""
        place = self._locate(path)
        writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) != 0
        try:
            descriptor = self._opener(
                place.root.descriptor, place.components, flags | os.O_NONBLOCK | os.O_NOCTTY, mode
            )
        except OSError as problem:
            raise _refusal(problem, path, place.shown, writing) from problem
        try:
            _accept(descriptor, path)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_NONBLOCK)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open_temporary(self, flags: int = 0) -> int:
        """See `Storage.open_temporary` (the seed's get_tmp_filename, without a name that could be found)."""
        directory = (self._temporary or self._roots[0]).descriptor
        try:
            return _open_nameless(directory, flags | os.O_RDWR | os.O_CLOEXEC)
        except OSError as problem:
            raise _refusal(problem, "a temporary file", "a temporary file", writing=True) from problem

    def unlink(self, path: str) -> None:
        """See `Storage.unlink`. Only a regular file is removed."""
        place = self._locate(path)
        parent = self._open_parent(path, place, os.O_PATH)
        try:
            name = place.components[-1]
            if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _deny(path, "it is not a regular file")
            os.unlink(name, dir_fd=parent)
        except OSError as problem:
            raise _refusal(problem, path, place.shown, writing=True) from problem
        finally:
            os.close(parent)

    def sync_directory(self, path: str) -> None:
        """See `Storage.sync_directory`."""
        place = self._locate(path)
        parent = self._open_parent(path, place, os.O_RDONLY)
        try:
            os.fsync(parent)
        except OSError as problem:
            raise _refusal(problem, path, place.shown, writing=True) from problem
        finally:
            os.close(parent)

    def relative_to_image(self, image: str, reference: str) -> str:
        """See `Storage.relative_to_image`. Formats are not parsed out of names: `nbd:`, `json:` ... are refused."""
        if protocol_of(reference):
            _deny(reference, "it names a protocol, and only files are followed from a header")
        if reference.startswith("/"):
            self._locate(reference)
            return reference
        place = self._locate(image)
        folded = list(place.components[:-1])
        for component in _checked_components(reference):
            if component != "..":
                folded.append(component)
            elif folded:
                folded.pop()
            else:
                _deny(reference, "it leads outside its storage root")
        if not folded:
            _deny(reference, "it is a directory")
        if not image.startswith("/"):
            return "/".join(folded)
        return "/" + "/".join((*_prefix_of(place.root, image), *folded))

    def name_for(self, image: str, path: str, *, absolute: bool) -> str:
        """See `Storage.name_for`."""
        here, there = self._locate(image), self._locate(path)
        if absolute:
            return "/" + "/".join((*there.root.prefixes[-1], *there.components))
        if here.root is not there.root:
            raise InvalidArgument("backing_naming", "absolute: the files lie beneath two storage roots", "relative")
        name = os.path.relpath("/".join(there.components), "/".join(here.components[:-1]) or ".")
        # "a:b" would be a protocol to whoever reads it (QEMU's path_has_protocol).
        return f"./{name}" if ":" in name.partition("/")[0] else name

    def is_same(self, first: str, second: str) -> bool:
        """See `Storage.is_same`."""
        one, other = self._locate(first), self._locate(second)
        return one.root is other.root and one.components == other.components

    def display(self, path: str) -> str:
        """See `Storage.display`."""
        return self._locate(path).shown

    def _locate(self, path: str) -> _Place:
        """Which root, and the components beneath it. Looks at text only, never at the disk."""
        components = _checked_components(path)
        if ".." in components:
            _deny(path, "it contains '..'")
        if not path.startswith("/"):
            return _beneath(path, self._roots[0], components)
        matches = [
            (len(prefix), root)
            for root in self._roots
            for prefix in root.prefixes
            if components[: len(prefix)] == prefix
        ]
        if not matches:
            _deny(path, "it lies outside the storage roots")
        length, root = max(matches, key=lambda match: match[0])
        return _beneath(path, root, components[length:])

    def _open_parent(self, path: str, place: _Place, access: int) -> int:
        above = place.components[:-1] or (".",)
        try:
            return self._opener(place.root.descriptor, above, access | os.O_DIRECTORY, 0)
        except OSError as problem:
            raise _refusal(problem, path, place.shown, writing=False) from problem


def _open_nameless(directory: int, flags: int) -> int:
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=directory)
    except OSError as problem:
        if problem.errno not in _NO_TMPFILE:
            raise
    name = f".blockyard-{secrets.token_hex(16)}"
    descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    os.unlink(name, dir_fd=directory)
    return descriptor


def _open_root(path: Path, option: str = "storage_root") -> _Root:
    absolute = path.absolute()
    try:
        real = absolute.resolve(strict=True)
        descriptor = os.open(real, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise InvalidArgument(option, "a directory", f"{path} ({problem.strerror})") from problem
    prefixes = {_components(os.path.normpath(absolute)), _components(str(real))}
    return _Root(descriptor, tuple(sorted(prefixes, key=len, reverse=True)))


def _components(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _checked_components(path: str) -> tuple[str, ...]:
    if not path:
        _deny(path, "it is empty")
    if "\0" in path:
        _deny(path, "it contains a NUL byte")
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        _deny(path.encode("utf-8", "backslashreplace").decode(), "it is not valid text")
    if len(encoded) > MAX_PATH_BYTES:
        _deny(path, f"it is longer than {MAX_PATH_BYTES} bytes")
    if path.endswith(("/", "/.")):
        _deny(path, "it names a directory")
    components = _components(path)
    if any(len(os.fsencode(component)) > MAX_COMPONENT_BYTES for component in components):
        _deny(path, f"a component of it is longer than {MAX_COMPONENT_BYTES} bytes")
    return components


def _beneath(path: str, root: _Root, components: tuple[str, ...]) -> _Place:
    if not components:
        _deny(path, "it is a directory")
    return _Place(root, components)


def _prefix_of(root: _Root, path: str) -> tuple[str, ...]:
    components = _components(path)
    return next(prefix for prefix in root.prefixes if components[: len(prefix)] == prefix)


def _accept(descriptor: int, path: str) -> None:
    status = os.fstat(descriptor)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        _deny(path, "it is a directory")
    generic = stat.S_ISCHR(mode) and os.major(status.st_rdev) == SCSI_GENERIC_MAJOR
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode) and not generic:
        _deny(path, "it is neither a regular file nor a block device")


def _deny(path: str, why: str) -> NoReturn:
    raise PathDenied(path if len(path) <= MAX_SHOWN else path[:MAX_SHOWN] + "...", why)


def _refusal(problem: OSError, path: str, shown: str, writing: bool) -> BlockError:
    code = problem.errno or errno.EIO
    if code in _WHY_REFUSED:
        return PathDenied(path, _WHY_REFUSED[code])
    if code in (errno.ENOENT, errno.ENOTDIR):
        return FileNotFound(shown)
    if code == errno.EEXIST:
        return FileExists(shown)
    if code in _NOT_WRITABLE:
        return FileReadOnly(shown) if writing else PathDenied(path, "the service has no permission to read it")
    if code in _NO_ROOM:
        return NoSpace(shown, "create")
    return IoError(shown, "open", code, os.strerror(code))
