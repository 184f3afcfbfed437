import os
from pathlib import Path

import pytest

from contexture.store.atomic import Disk, remove_folder, standing, sweep, try_lock, write_file, write_folder
from contexture.store.faults import FaultyDisk, SimulatedCrash

OLD = {"a.txt": b"old a", "z.txt": b"old z"}
NEW = {"a.txt": b"new", "b.txt": b"new too"}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def num_calls(action: object, *arguments: object) -> int:
    disk = FaultyDisk()
    assert callable(action)
    action(*arguments, disk=disk)
    assert {"write", "fsync", "rename", "fsync_folder"} <= set(disk.calls)
    return len(disk.calls)


def test_a_new_file_holds_what_was_written_and_nothing_else_is_there(tmp_path: Path) -> None:
    write_file(tmp_path / "deep" / "er" / "note.txt", b"hello")
    assert (tmp_path / "deep" / "er" / "note.txt").read_bytes() == b"hello"
    assert names(tmp_path / "deep" / "er") == ["note.txt"]


def test_a_write_goes_on_until_every_byte_is_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: whole(handle, bytes(data)[:2]))
    write_file(tmp_path / "note.txt", b"seven b")
    assert (tmp_path / "note.txt").read_bytes() == b"seven b"


def test_a_file_is_old_or_new_and_never_between_whichever_call_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    for at in range(num_calls(write_file, path, b"old")):
        write_file(path, b"old")
        with pytest.raises(OSError, match="No space left"):
            write_file(path, b"new and longer", disk=FaultyDisk(at=at))
        assert path.read_bytes() in (b"old", b"new and longer")
        assert names(tmp_path) == ["note.txt"]


def test_a_file_is_old_or_new_and_never_between_wherever_the_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    seen, strays = set(), 0
    for at in range(num_calls(write_file, path, b"old")):
        write_file(path, b"old")
        with pytest.raises(SimulatedCrash):
            write_file(path, b"new and longer", disk=FaultyDisk(at=at, fault="crash"))
        seen.add(path.read_bytes())
        strays += len(names(tmp_path)) - 1
        write_file(path, b"next")
        assert names(tmp_path) == ["note.txt"]
    assert seen == {b"old", b"new and longer"}
    assert strays > 0


def test_another_writers_file_is_swept_only_when_its_process_is_gone(tmp_path: Path) -> None:
    stray = tmp_path / ".note.txt.00000000.tmp"
    handle = os.open(stray, os.O_RDWR | os.O_CREAT)
    assert try_lock(handle)
    sweep(tmp_path)
    assert stray.exists()
    os.close(handle)
    sweep(tmp_path)
    assert not stray.exists()


def test_sweeping_leaves_every_other_file_alone(tmp_path: Path) -> None:
    kept = [".hidden", "note.tmp", "step.new", ".gitignore"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    sweep(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "it", OLD.items())
    assert contents(tmp_path / "it") == OLD
    write_folder(tmp_path / "it", NEW.items())
    assert contents(tmp_path / "it") == NEW
    assert names(tmp_path) == ["it"]


def test_a_folder_is_old_or_new_and_never_between_whichever_call_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "it"
    write_folder(path, OLD.items())
    for at in range(num_calls(write_folder, path, NEW.items()) - 1):
        write_folder(path, OLD.items())
        with pytest.raises(OSError, match="No space left"):
            write_folder(path, NEW.items(), disk=FaultyDisk(at=at))
        assert contents(path) in (OLD, NEW)
        assert names(tmp_path) == ["it"]


def test_a_replaced_folder_that_cannot_be_removed_is_left_to_the_next_sweep(tmp_path: Path) -> None:
    path = tmp_path / "it"
    write_folder(path, OLD.items())
    last = num_calls(write_folder, path, NEW.items()) - 1
    write_folder(path, OLD.items(), disk=FaultyDisk(at=last))
    assert contents(path) == OLD
    assert names(tmp_path) == [".it.was", "it"]
    sweep(tmp_path)
    assert names(tmp_path) == ["it"]


def test_a_folder_is_old_or_new_and_never_between_wherever_the_process_dies(tmp_path: Path) -> None:
    path = tmp_path / "it"
    write_folder(path, OLD.items())
    seen, moved = [], 0
    for at in range(num_calls(write_folder, path, NEW.items())):
        write_folder(path, OLD.items())
        with pytest.raises(SimulatedCrash):
            write_folder(path, NEW.items(), disk=FaultyDisk(at=at, fault="crash"))
        moved += not path.exists()
        seen.append(contents(standing(path)))
        sweep(tmp_path)
        assert contents(path) == seen[-1]
        assert names(tmp_path) == ["it"]
    assert OLD in seen
    assert NEW in seen
    assert all(found in (OLD, NEW) for found in seen)
    assert moved > 0


def test_a_failing_source_of_files_leaves_the_old_folder(tmp_path: Path) -> None:
    def files() -> object:
        yield "a.txt", b"new"
        raise ValueError("no more")

    write_folder(tmp_path / "it", OLD.items())
    with pytest.raises(ValueError, match="no more"):
        write_folder(tmp_path / "it", files())  # type: ignore[arg-type]
    assert contents(tmp_path / "it") == OLD
    assert names(tmp_path) == ["it"]


def test_a_folder_is_removed_whole_or_stands_whole(tmp_path: Path) -> None:
    path = tmp_path / "it"
    for at in range(3):
        write_folder(path, OLD.items())
        with pytest.raises(SimulatedCrash):
            remove_folder(path, disk=FaultyDisk(at=at, fault="crash"))
        assert not path.exists() or contents(path) == OLD
        sweep(tmp_path)
        assert names(tmp_path) in ([], ["it"])


def test_a_faulty_disk_strikes_once_and_counts(tmp_path: Path) -> None:
    disk = FaultyDisk(at=1)
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "note.txt", b"x", disk=disk)
    write_file(tmp_path / "note.txt", b"y", disk=disk)
    assert (tmp_path / "note.txt").read_bytes() == b"y"
    assert disk.calls.count("write") == 2


def test_a_struck_write_is_torn(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "note.txt", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(SimulatedCrash):
            FaultyDisk(at=0, fault="crash").write(handle, b"123456")
        Disk().fsync(handle)
    finally:
        os.close(handle)
    assert (tmp_path / "note.txt").read_bytes() == b"123"
