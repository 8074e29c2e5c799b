"""Output folders: whole or not at all."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from nmc.folders import replacing, write_bytes
from nmc_compiler.errors import ArtefactError, UsageError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "a" / "b", last="z") as stage:
        write_bytes(stage / "z", b"1")
        assert not (tmp_path / "a" / "b").exists()
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["b"]
    assert (tmp_path / "a" / "b" / "z").read_bytes() == b"1"


def test_files_are_replaced_the_last_one_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a", "old", "stranger"):
        (out / name).write_text("before")
    moved = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))
    with replacing(out, last="a", stale=("old", "never")) as stage:
        for name in ("a", "b"):
            write_bytes(stage / name, b"after")
    assert moved == ["b", "a"]
    assert names(out) == ["a", "b", "stranger"] and names(tmp_path) == ["out"]
    assert (out / "a").read_text() == "after" and (out / "stranger").read_text() == "before"


class Stop(BaseException):
    """As KeyboardInterrupt: not an Exception."""


@pytest.mark.parametrize("error", [ArtefactError("no"), OSError(28, "No space left on device"), Stop()])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("before")
    with pytest.raises((ArtefactError, Stop)), replacing(out, last="a", stale=("a",)) as stage:
        write_bytes(stage / "a", b"after")
        raise error
    assert names(tmp_path) == ["out"] and (out / "a").read_text() == "before"


def test_a_failure_takes_back_the_folders_made_on_the_way(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as error, replacing(tmp_path / "a" / "b" / "c", last="z"):
        raise OSError(28, "No space left on device")
    assert str(error.value) == (
        f"{tmp_path}/a/b/c: could not be written: No space left on device; nothing was left behind. "
        "Free some space or choose another folder"
    )
    assert names(tmp_path) == []


def test_errors_from_inside_name_the_folder_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as error, replacing(tmp_path / "out", last="z") as stage:
        raise ArtefactError(f"{stage}/z: too large")
    assert str(error.value) == f"{tmp_path}/out/z: too large"


def test_what_is_in_the_way_is_refused_before_anything_moves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file; give a folder"), replacing(tmp_path / "file", last="z"):
        raise AssertionError("the block must not run")
    out = tmp_path / "out"
    (out / "b").mkdir(parents=True)
    (out / "a").write_text("before")
    with pytest.raises(UsageError, match="is a folder where a file has to be"), replacing(out, last="z") as stage:
        for name in ("a", "b"):
            write_bytes(stage / name, b"after")
    assert (out / "a").read_text() == "before"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    node = platform.node()
    made = [f".out.{node}.{gone.pid}.part", f".out.{node}.{os.getppid()}.part", f".out.elsewhere.{gone.pid}.part"]
    made += [f".other.{node}.{gone.pid}.part", f".out.{node}.x.part", f".out.{node}.{gone.pid}.mine"]
    for name in made:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("x")
    with replacing(tmp_path / "out", last="a") as stage:
        (stage / "a").write_text("a")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*made[1:], "out"])
