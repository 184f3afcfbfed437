import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from contexture.errors import CheckpointError, InputError
from contexture.store import json_text
from contexture.store.atomic import Disk
from contexture.store.checkpoint import CheckpointStore, read_checkpoint, write_checkpoint
from contexture.store.environment import environment
from contexture.store.faults import FaultyDisk, SimulatedCrash
from contexture.store.record import RunRecord
from contexture.store.results import write_result

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def tensors(value: float = 1.0) -> dict[str, dict[str, Tensor]]:
    weight = torch.tensor([[value, 2.0, 3.0], [4.0, 5.0, 6.0]])
    return {"model": {"weight": weight, "bias": torch.tensor(0.5)}, "optimizer": {"weight.exp_avg": weight / 3}}


def filled(run: Path, *steps: int) -> CheckpointStore:
    store = CheckpointStore(run, keep=len(steps))
    for step in steps:
        store.save(step, tensors(step), {"step": step})
    return CheckpointStore(run)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "runs" / "first")
    path = store.save(200, tensors(), {"loss": 0.1 + 0.2, "schedule": [1, None, "cosine"], "worst": float("inf")})
    assert path.name == "step-00000200"
    assert names(path) == FILES
    found = store.latest()
    assert found is not None
    assert (found.step, found.path) == (200, path)
    assert found.state == {"loss": 0.1 + 0.2, "schedule": [1, None, "cosine"], "worst": float("inf")}
    assert found.environment == environment()
    assert {group: set(named) for group, named in found.tensors.items()} == {
        "model": {"weight", "bias"},
        "optimizer": {"weight.exp_avg"},
    }
    for group, named in tensors().items():
        for name, tensor in named.items():
            assert torch.equal(found.tensors[group][name], tensor)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.uint8]
)
@pytest.mark.parametrize("shape", [(3, 2), (1,), (0, 4)])
def test_every_dtype_and_shape_keeps_its_bits(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(50).to(dtype)
    write_checkpoint(tmp_path / "it", step=1, tensors={"model": {"w": tensor}}, state={})
    assert same_bits(read_checkpoint(tmp_path / "it").tensors["model"]["w"], tensor)


def test_scalars_truths_nans_and_generators_keep_their_bits(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    saved = {
        "scalar": torch.tensor(7, dtype=torch.int64),
        "truth": torch.tensor([True, False, True]),
        "nans": torch.tensor([0x7FC00001, 0x7F800001, -0x00800000, -0x80000000]).int().view(torch.float32),
        "generator": generator.get_state(),
    }
    write_checkpoint(tmp_path / "it", step=1, tensors={"model": saved}, state={})
    read = read_checkpoint(tmp_path / "it").tensors["model"]
    assert read["scalar"].shape == ()
    assert int(read["scalar"]) == 7
    assert torch.equal(read["truth"], saved["truth"])
    assert torch.equal(read["nans"].view(torch.int32), saved["nans"].view(torch.int32))
    again = torch.Generator()
    again.set_state(read["generator"])
    assert torch.equal(torch.rand(5, generator=again), torch.rand(5, generator=generator))


def test_views_transposes_and_tied_tensors_are_each_stored_in_full(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    saved = {"a": base, "tied": base, "turned": base.t(), "row": base[1], "column": base[:, 2]}
    write_checkpoint(tmp_path / "it", step=1, tensors={"model": saved}, state={})
    read = read_checkpoint(tmp_path / "it").tensors["model"]
    assert all(torch.equal(read[name], tensor) for name, tensor in saved.items())
    assert not any(tensor.requires_grad for tensor in read.values())
    assert len({tensor.untyped_storage().data_ptr() for tensor in read.values()}) == 5


def test_the_weights_are_a_plain_safetensors_file(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(1, tensors(), {})
    assert torch.equal(load_file(path / "model.safetensors")["weight"], tensors()["model"]["weight"])


def test_the_manifest_holds_size_and_sha256_of_every_file(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(1, tensors(), {})
    listed = json.loads((path / "manifest.json").read_text())["files"]
    assert sorted([*listed, "manifest.json"]) == FILES
    for name, about in listed.items():
        data = (path / name).read_bytes()
        assert about == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.latest() is None
    for step in (5, 10, 99999999, 100000000):
        store.save(step, tensors(), {})
    assert store.steps() == [99999999, 100000000]
    assert names(tmp_path) == ["step-100000000", "step-99999999"]
    found = store.latest()
    assert found is not None
    assert found.step == 100000000


def test_at_least_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 checkpoint"):
        CheckpointStore(tmp_path, keep=0)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, 2)
    store.save(2, tensors(9.0), {"again": True})
    found = store.latest()
    assert found is not None
    assert found.state == {"again": True}
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)


def forge(path: Path, **changes: Any) -> None:
    """Change the manifest and seal it anew, as only a program that knows the format could."""
    manifest = json_text.loads((path / "manifest.json").read_bytes()) | changes
    del manifest["sha256"]
    seal = hashlib.sha256(json_text.dumps(manifest, what="it").encode()).hexdigest()
    (path / "manifest.json").write_text(json_text.dumps({**manifest, "sha256": seal}, what="it"))


def replace_weights(path: Path, data: bytes) -> None:
    (path / "model.safetensors").write_bytes(data)
    files = json.loads((path / "manifest.json").read_text())["files"]
    forge(path, files=files | {"model.safetensors": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}})


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "has no manifest.json"),
    "empty manifest": (lambda p: (p / "manifest.json").write_text(""), "manifest.json cannot be read as JSON"),
    "half a manifest": (lambda p: (p / "manifest.json").write_text('{"format": "co'), "cannot be read as JSON"),
    "manifest a list": (lambda p: (p / "manifest.json").write_text("[]"), "not a checkpoint of this program"),
    "another program's": (lambda p: forge(p, format="other"), "not a checkpoint of this program"),
    "a later version": (lambda p: forge(p, version=2), "has version 2, but this program reads version 1"),
    "step edited": (
        lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text().replace('"step": 2', '"step": 3')),
        "does not match its own checksum",
    ),
    "weights missing": (lambda p: (p / "model.safetensors").unlink(), "model.safetensors cannot be read"),
    "weights truncated": (
        lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-1]),
        "model.safetensors has",
    ),
    "weights empty": (lambda p: (p / "model.safetensors").write_bytes(b""), "model.safetensors has 0 bytes"),
    "a bit of the weights": (lambda p: flip(p / "model.safetensors", -1), "model.safetensors does not match"),
    "a bit of the header": (lambda p: flip(p / "model.safetensors", 12), "model.safetensors does not match"),
    "a bit of the optimizer": (lambda p: flip(p / "optimizer.safetensors", -1), "optimizer.safetensors does not"),
    "a bit of the state": (lambda p: flip(p / "state.json", 0), "state.json does not match"),
    "state missing": (lambda p: (p / "state.json").unlink(), "state.json cannot be read"),
    "not safetensors": (lambda p: replace_weights(p, b"neither here nor there"), "is not a safetensors file"),
    "a path that leads out": (lambda p: forge(p, files={"../x.json": {}, "state.json": {}}), "its files are"),
    "no state listed": (lambda p: forge(p, files={}), "its files are"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_refused_by_name_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    said: list[str] = []
    filled(tmp_path, 1, 2)
    store = CheckpointStore(tmp_path, report=said.append)
    act, why = DAMAGES[damage]
    act(store.path(2))
    with pytest.raises(CheckpointError, match=r"step-00000002.*") as caught:
        read_checkpoint(store.path(2))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 3
    found = store.latest()
    assert found is not None
    assert found.state == {"step": 1}
    assert said == [f"{caught.value}; the one before it is looked at"]


def test_none_intact_left_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(tmp_path, 1, 2)
    flip(store.path(1) / "model.safetensors", -1)
    (store.path(2) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no intact checkpoint left \(damaged: 2\)"):
        store.latest()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step-00000001" in captured.err
    assert "step-00000002" in captured.err


def test_a_misnamed_one_is_not_taken_for_another_step(tmp_path: Path) -> None:
    said: list[str] = []
    store = filled(tmp_path, 1)
    shutil.copytree(store.path(1), store.path(7))
    found = CheckpointStore(tmp_path, report=said.append).latest()
    assert found is not None
    assert found.step == 1
    assert "is misnamed: it holds step 1" in said[0]


class Bomb:
    """Unpickling this raises; nobody may try."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["weights.pt", "model.safetensors"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    bomb = pickle.dumps(Bomb())
    (tmp_path / name).write_bytes(bomb)
    with pytest.raises(CheckpointError, match=r"is a file, and only checkpoint folders are read \(never a pickle\)"):
        read_checkpoint(tmp_path / name)
    store = filled(tmp_path / "run", 1)
    (store.path(1) / name).write_bytes(bomb)
    if name == "model.safetensors":
        replace_weights(store.path(1), bomb)
        with pytest.raises(CheckpointError, match="is not a safetensors file"):
            read_checkpoint(store.path(1))
    else:
        assert read_checkpoint(store.path(1)).step == 1
        (store.path(1) / "manifest.json").unlink()
        with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
            read_checkpoint(store.path(1))


def test_an_absent_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it does not exist"):
        read_checkpoint(tmp_path / "nowhere")


def test_the_callers_expectations_are_checked(tmp_path: Path) -> None:
    found = read_checkpoint(CheckpointStore(tmp_path).save(1, tensors(), {}))
    like = tensors(8.0)["model"]
    assert torch.equal(found.expect("model", like)["weight"], tensors()["model"]["weight"])
    with pytest.raises(CheckpointError, match="lacks the model tensors 'gain'"):
        found.expect("model", like | {"gain": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="holds model tensors not asked for: 'bias'"):
        found.expect("model", {"weight": like["weight"]})
    with pytest.raises(CheckpointError, match=r"'weight' is float32 \[2, 3\] in .* but float32 \[3, 2\] is wanted"):
        found.expect("model", like | {"weight": torch.zeros(3, 2)})
    with pytest.raises(CheckpointError, match=r"'bias' is float32 \[\] in .* but float64 \[\] is wanted"):
        found.expect("model", like | {"bias": torch.zeros((), dtype=torch.float64)})
    with pytest.raises(CheckpointError, match="has no 'generators' tensors: it holds 'model', 'optimizer'"):
        found.expect("generators", {})


def test_an_exact_resume_elsewhere_is_refused(tmp_path: Path) -> None:
    found = read_checkpoint(CheckpointStore(tmp_path).save(1, tensors(), {}))
    found.require_same_environment()
    with pytest.raises(CheckpointError, match=r"cannot be exact here \(number of threads: \d+ there, 61 here\)"):
        found.require_same_environment(environment() | {"threads": 61})


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"model": {"w": 1.0}}, "the model entry 'w' is not a dense tensor"),
        ({"model": {"w": torch.eye(2).to_sparse()}}, "the model entry 'w' is not a dense tensor"),
        ({"../model": {}}, "'../model.safetensors' cannot name a group"),
        ({"Model": {}}, "cannot name a group"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing(tmp_path: Path, bad: Any, why: str) -> None:
    store = filled(tmp_path, 1)
    with pytest.raises(InputError, match=why):
        store.save(2, bad, {})
    with pytest.raises(InputError, match="the checkpoint's state holds a set at a"):
        store.save(2, {}, {"a": {1}})
    assert names(tmp_path) == ["step-00000001"]


def test_what_is_not_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a checkpoint"):
        write_checkpoint(tmp_path / "thesis", step=1, tensors=tensors(), state={})
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_discarding_what_a_resumed_run_will_write_again(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, 2, 3)
    store.discard_after(1)
    assert names(tmp_path) == ["step-00000001"]


def test_a_refused_call_leaves_the_checkpoints_intact_and_no_stray(tmp_path: Path) -> None:
    counting = FaultyDisk()
    filled(tmp_path / "count", 1, 2)
    CheckpointStore(tmp_path / "count", disk=counting).save(3, tensors(3), {"step": 3})
    said: list[str] = []
    for at, kind in enumerate(counting.calls):
        run = tmp_path / str(at)
        filled(run, 1, 2)
        store = CheckpointStore(run, disk=FaultyDisk(at=at), report=said.append)
        if at < counting.calls.index("remove"):
            with pytest.raises(CheckpointError, match="could not be written: No space left"):
                store.save(3, tensors(3), {"step": 3})
        else:
            store.save(3, tensors(3), {"step": 3})
        found = store.latest()
        assert found is not None
        assert found.state in ({"step": 2}, {"step": 3}), kind
        assert len(store.steps()) >= 2
        CheckpointStore(run).recover()
        assert all(name.startswith("step-") for name in names(run))
        assert len(names(run)) == 2
    assert any("could not be removed" in sentence for sentence in said)


@pytest.mark.parametrize("again", [False, True])
def test_wherever_the_process_dies_the_newest_durable_checkpoint_stands(tmp_path: Path, again: bool) -> None:
    step = 2 if again else 3
    counting = FaultyDisk()
    filled(tmp_path / "count", 1, 2)
    CheckpointStore(tmp_path / "count", disk=counting).save(step, tensors(9), {"new": True})
    assert {"write", "fsync", "rename", "fsync_folder", "remove"} == set(counting.calls)
    outcomes = set()
    for at in range(len(counting.calls)):
        run = tmp_path / str(at)
        filled(run, 1, 2)
        with pytest.raises(SimulatedCrash):
            CheckpointStore(run, disk=FaultyDisk(at=at, fault="crash")).save(step, tensors(9), {"new": True})
        before = CheckpointStore(run, report=pytest.fail).latest()
        store = CheckpointStore(run, report=pytest.fail)
        store.recover()
        found = store.latest()
        assert before is not None
        assert found is not None
        assert found.state in ({"step": 2}, {"new": True})
        if not again:
            assert found.state == before.state
        outcomes.add(found.step if not again else "new" in found.state)
        assert len(store.steps()) == 2
        assert all(name.startswith("step-") for name in names(run))
    assert len(outcomes) == 2


class WatchingDisk(Disk):
    """Fails when a name is given to, or a predecessor taken from, something that a power cut could still undo."""

    def __init__(self) -> None:
        self.volatile_files: set[int] = set()
        self.durable_folders: set[Path] = set()
        self.volatile_names: set[Path] = set()

    def write(self, handle: int, data: bytes) -> None:
        self.volatile_files.add(os.fstat(handle).st_ino)
        super().write(handle, data)

    def fsync(self, handle: int) -> None:
        self.volatile_files.discard(os.fstat(handle).st_ino)
        super().fsync(handle)

    def fsync_folder(self, folder: Path) -> None:
        self.durable_folders.add(folder)
        self.volatile_names -= {name for name in self.volatile_names if name.parent == folder}
        super().fsync_folder(folder)

    def rename(self, source: Path, target: Path) -> None:
        assert not self.volatile_files
        if target.suffix == ".out":
            assert not self.volatile_names
        elif target.suffix != ".was":
            assert source in self.durable_folders or source.is_file()
            self.volatile_names.add(target)
        super().rename(source, target)

    def volatile(self) -> bool:
        return bool(self.volatile_files or self.volatile_names)


def test_everything_is_durable_before_it_is_named_or_anything_older_goes(tmp_path: Path) -> None:
    disk = WatchingDisk()
    store = CheckpointStore(tmp_path / "run", disk=disk)
    for step in (1, 2, 3, 3, 4):
        store.save(step, tensors(step), {})
        assert not disk.volatile()
    write_result(tmp_path / "result.json", {"n": 1}, disk=disk)
    assert not disk.volatile()
    with RunRecord(tmp_path / "record.jsonl", disk=disk) as record:
        assert tmp_path in disk.durable_folders
        record.append({"step": 1})
        assert not disk.volatile()


@pytest.mark.parametrize("skipped", ["fsync", "fsync_folder"])
def test_a_missing_fsync_would_be_seen(tmp_path: Path, skipped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = WatchingDisk()
    monkeypatch.setattr(disk, skipped, lambda *_: None)
    with pytest.raises(AssertionError):
        CheckpointStore(tmp_path, disk=disk).save(1, tensors(), {})
