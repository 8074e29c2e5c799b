"""Output folders: written beside their place, then renamed, so that a failure leaves what was there."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from nmc_compiler.errors import ArtefactError, NmcError, UsageError

PART = ".part"


@contextlib.contextmanager
def replacing(folder: str | os.PathLike[str], last: str, stale: tuple[str, ...] = ()) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well, its files take their place in ``folder``.

    A new folder appears whole. In one that exists, files of the same names are replaced one by
    one (``last`` is the file that vouches for the others), those named in ``stale`` and not
    written again are removed, and everything else stays. Where anything fails, ``folder`` is as
    it was; what a killed process had begun is cleared away by the next. Raises ArtefactError where
    it cannot be written, UsageError where it is a file.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target}: is a file; give a folder for the output")
    made = [p for p in target.parents if not p.exists()]
    begin, done = f".{target.name or 'nmc'}.{platform.node()}.", False
    stage = target.parent / f"{begin}{os.getpid()}{PART}"
    _clear_abandoned(target.parent, begin)
    try:
        stage.mkdir(parents=True)
        yield stage
        _move(stage, target, last, stale)
        done = True
    except OSError as error:
        raise ArtefactError(
            f"{target}: could not be written: {error.strerror or error}; nothing was left behind. "
            "Free some space or choose another folder"
        ) from None
    except NmcError as error:
        raise type(error)(str(error).replace(str(stage), str(target))) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if not done:
            _remove_empty(made)


def _clear_abandoned(parent: Path, begin: str) -> None:
    """Remove stages of processes of this machine that are no more."""
    for path in parent.iterdir() if parent.is_dir() else ():
        number = path.name.removeprefix(begin).removesuffix(PART)
        if path.name == f"{begin}{number}{PART}" and number.isdecimal() and not _alive(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write and flush to the disk: a full one may show only there."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def write_file(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write one file beside its place and move it there, so that it is never half-written.

    Raises ArtefactError where it cannot be written, UsageError where a folder is in its place.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target}: is a folder; give a file for the output")
    made = [p for p in target.parents if not p.exists()]
    part, done = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}{PART}"), False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(part, data)
        os.replace(part, target)
        done = True
    except OSError as error:
        raise ArtefactError(
            f"{target}: could not be written: {error.strerror or error}; nothing was left behind. "
            "Free some space or choose another place"
        ) from None
    finally:
        part.unlink(missing_ok=True)
        if not done:
            _remove_empty(made)
    return target


def _move(stage: Path, target: Path, last: str, stale: tuple[str, ...]) -> None:
    if not target.exists():
        os.rename(stage, target)
        return
    names = sorted((p.name for p in stage.iterdir()), key=lambda name: (name == last, name))
    blocked = [name for name in names if (target / name).is_dir()]
    if blocked:
        raise UsageError(f"{target / blocked[0]}: is a folder where a file has to be; choose another output")
    for name in names:
        os.replace(stage / name, target / name)
    for name in set(stale) - set(names):
        (target / name).unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    """Take back the folders made on the way, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
