"""The folder in which the numbers of all processes of one Dramatiq master come together.

Each master has its own, named after its process id. Every process that uses it holds a shared lock on it for as long
as it lives, so a folder that nobody holds belongs to a dead master and is removed, and one that a dead master of the
same id left behind is emptied before it is used.

Whatever else removes files of it, as programs do that clean up temporary folders: `keep`, called now and then by each
process that counts, makes them again.
"""

from __future__ import annotations

import fcntl
import inspect
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from carpark.errors import InvalidSetting
from carpark.services import METRICS_FOLDER

PAGE = "page"
"""The file that the process that shows the page holds an exclusive lock on."""

REFUSED = "refused"
"""The file that says that a worker process has already complained about the port."""

_TRIES, _TRY_AGAIN = 5, 0.05
_held: dict[Path, tuple[int, bool]] = {}


def master_pid() -> int | None:
    """Find the process that started this one as a part of itself."""
    parent = multiprocessing.parent_process()
    return None if parent is None else parent.pid


def join_master() -> bool:
    """Have prometheus_client keep its numbers in the master's folder, if there is a master; tell if it is the first."""
    master = master_pid()
    if master is None:
        return True
    folder, is_first = enter(master)
    os.environ[METRICS_FOLDER] = str(folder)
    return is_first


def enter(master: int) -> tuple[Path, bool]:
    """Use a master's folder from now on until this process ends. May be called again.

    The folders of dead masters are removed.
    """
    try:
        base = _base()
        folder = base / str(master)
        if folder not in _held:
            for other in base.iterdir():
                if other != folder and other.is_dir() and not other.is_symlink():
                    _remove_dead(other)
            _held[folder] = _hold(folder)
        elif not _is_at(folder, _held[folder][0]):
            os.close(_held.pop(folder)[0])
            _held[folder] = _hold(folder)
        return folder, _held[folder][1]
    except OSError as error:
        raise _unusable(str(error)) from error


def keep(master: int) -> None:
    """Make the folder, and this process' files in it, again if they are gone or others are in their place."""
    from prometheus_client import values
    from prometheus_client.mmap_dict import MmapedDict

    enter(master)
    inner = inspect.getclosurevars(values.ValueClass.__init__).nonlocals  # its lock, and all values that it has made
    with inner["lock"]:
        mine: list[Any] = list(inner["values"])
        for file in {id(each._file): each._file for each in mine}.values():
            path = Path(file._fname)
            if _is_at(path, file._f.fileno()):
                continue
            unfinished = path.with_suffix(".new")  # renamed when it is whole: the page adds up what it finds
            unfinished.unlink(missing_ok=True)
            new: Any = MmapedDict(str(unfinished))  # type: ignore[no-untyped-call]
            for each in mine:
                if each._file is file:
                    new.write_value(each._key, each._value, each._timestamp)
            unfinished.replace(path)
            new._fname = file._fname
            vars(file).update(vars(new))  # the same object: prometheus_client has it for values that are yet to come


def _base() -> Path:
    base = Path(tempfile.gettempdir()) / f"carpark-metrics-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise _unusable(f"{base} belongs to somebody else")
    return base


def _unusable(reason: str) -> InvalidSetting:
    return InvalidSetting("TMPDIR", tempfile.gettempdir(), f"a folder in which metrics can be kept ({reason})")


def _hold(folder: Path) -> tuple[int, bool]:
    """Lock a folder against its removal; tell whether nobody else had."""
    while True:
        folder.mkdir(exist_ok=True)
        lock = _open(folder)
        if lock is None:
            continue
        # Before it was locked, another master may have removed the folder as a dead one's: then once more.
        first = _is_alone(lock) and _is_at(folder, lock)
        if first:
            _empty(folder)
        # From alone to shared there is a moment without a lock, in which the folder may be removed: then once more.
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_at(folder, lock):
            return lock, first
        os.close(lock)


def hold_page(folder: Path) -> IO[str] | None:
    """Become the process that shows the page."""
    lock = (folder / PAGE).open("a", encoding="ascii")
    for _ in range(_TRIES):
        if _is_alone(lock):
            return lock
        time.sleep(_TRY_AGAIN)  # perhaps a process has it that looks whether it is held
    lock.close()
    return None


def is_held(page: IO[str]) -> bool:
    """Tell whether a process shows the page."""
    try:
        fcntl.flock(page, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(page, fcntl.LOCK_UN)
    return False


def _open(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _is_alone(lock: int | IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove_dead(folder: Path) -> None:
    lock = _open(folder)
    if lock is None:
        return
    try:
        if _is_alone(lock) and _is_at(folder, lock):
            shutil.rmtree(folder)
    finally:
        os.close(lock)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
