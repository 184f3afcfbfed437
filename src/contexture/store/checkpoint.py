"""Checkpoints: one folder each, with weights in safetensors, the rest in JSON, and a manifest that proves it whole.

    run/step-00000200/
        model.safetensors        one file for each group of tensors: model, optimizer, generators, ...
        state.json               counters, schedules, settings
        manifest.json            format, step, environment; size and SHA-256 of every file above; written last

The folder appears by one rename when all of it is durable, so a killed process leaves a whole checkpoint or none.
Nothing here reads a pickle: bytes are handed to the safetensors parser only after their checksum has been compared.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from contexture.errors import CheckpointError, InputError
from contexture.store import json_text
from contexture.store.atomic import DISK, Disk, remove_folder, standing, sweep, write_folder
from contexture.store.environment import environment as describe_environment
from contexture.store.environment import same_for_resume
from contexture.store.report import Report, to_stderr

FORMAT = "contexture-checkpoint"
VERSION = 1
MANIFEST = "manifest.json"
STATE = "state.json"
_FILE = re.compile(r"[a-z][a-z0-9_-]*\.(safetensors|json)")
_FOLDER = re.compile(r"step-(\d{8,})")

Groups = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint read back and verified: tensors by group and name, on the CPU, each in memory of its own."""

    path: Path
    step: int
    tensors: Groups
    state: Mapping[str, Any]
    environment: Mapping[str, Any]

    def expect(self, group: str, like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the tensors of `group` if their names, shapes and dtypes are those of `like`; else CheckpointError."""
        if group not in self.tensors:
            raise CheckpointError(
                f"the checkpoint {self.path} has no {group!r} tensors: it holds {_list(self.tensors)}"
            )
        held = self.tensors[group]
        missing, extra = like.keys() - held.keys(), held.keys() - like.keys()
        if missing:
            raise CheckpointError(f"the checkpoint {self.path} lacks the {group} tensors {_list(missing)}")
        if extra:
            raise CheckpointError(f"the checkpoint {self.path} holds {group} tensors not asked for: {_list(extra)}")
        for name, wanted in like.items():
            if _signature(held[name]) != _signature(wanted):
                raise CheckpointError(
                    f"the {group} tensor {name!r} is {_signature(held[name])} in the checkpoint {self.path}, "
                    f"but {_signature(wanted)} is wanted"
                )
        return held

    def require_same_environment(self, here: Mapping[str, Any] | None = None) -> None:
        """Raise CheckpointError, naming every difference, unless resuming here (by default: now) can be bit-exact."""
        differences = same_for_resume(self.environment, describe_environment() if here is None else here)
        if differences:
            raise CheckpointError(
                f"resuming from {self.path} cannot be exact here ({'; '.join(differences)}): resume where it was "
                "written, or pass --inexact"
            )


def write_checkpoint(
    path: str | Path,
    *,
    step: int,
    tensors: Groups,
    state: Mapping[str, Any],
    environment: Mapping[str, Any] | None = None,
    disk: Disk = DISK,
) -> None:
    """Write one checkpoint folder, durable and whole on return; an existing checkpoint at `path` is replaced.

    Raises InputError for what cannot be stored (before anything is touched, except for a tensor of a dtype that
    safetensors lacks) and CheckpointError if the disk refuses; either way nothing half-written stays.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file():
        raise InputError(f"{path} exists and is not a checkpoint: choose a name that is free")
    state_text = json_text.dumps(state, what="the checkpoint's state")
    about = {"step": step, "environment": dict(describe_environment() if environment is None else environment)}
    try:
        write_folder(path, _files(about, tensors, state_text.encode()), disk=disk)
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} could not be written: {error.strerror or error}") from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read and verify one checkpoint folder; CheckpointError says in one sentence why it is refused."""
    path = standing(path)
    if not path.is_dir():
        found = (
            "is a file, and only checkpoint folders are read (never a pickle)" if path.exists() else "does not exist"
        )
        raise CheckpointError(f"no checkpoint at {path}: it {found}")
    manifest = _read_manifest(path)
    contents = {name: _read_file(path, name, about) for name, about in manifest["files"].items()}
    try:
        state = json_text.loads(contents.pop(STATE))
    except ValueError as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {STATE} is not JSON") from error
    tensors = {Path(name).stem: _decode(path, name, data) for name, data in contents.items()}
    return Checkpoint(
        path=path, step=manifest["step"], tensors=tensors, state=state, environment=manifest["environment"]
    )


class CheckpointStore:
    """The checkpoints of one run folder, of which the last `keep` are kept. One process writes; any may read."""

    def __init__(self, run_dir: str | Path, *, keep: int = 2, disk: Disk = DISK, report: Report = to_stderr) -> None:
        if keep < 1:
            raise InputError(f"keep is {keep}, but at least 1 checkpoint has to be kept")
        self.run_dir = Path(run_dir)
        self.keep = keep
        self._disk = disk
        self._report = report

    def path(self, step: int) -> Path:
        """The folder of the checkpoint at `step`."""
        return self.run_dir / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps at which a checkpoint stands, in order, verified or not."""
        found = (_FOLDER.fullmatch(folder.name) for folder in self.run_dir.glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, tensors: Groups, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of `step`, durable on return, then remove all but the last `keep`.

        tensors: by group, then name, e.g. {"model": model.state_dict(), ...}; state: anything JSON can hold.
        """
        path = self.path(step)
        if path.exists() and not (path / MANIFEST).is_file():
            self._remove(step)
        write_checkpoint(path, step=step, tensors=tensors, state=state, disk=self._disk)
        self._prune()
        return path

    def latest(self) -> Checkpoint | None:
        """The newest intact checkpoint, or None if this run has not saved any.

        A damaged one is reported and the one before is used; CheckpointError if none is left.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step)
            except CheckpointError as error:
                self._report(f"{error}; the one before it is looked at")
        if steps:
            raise CheckpointError(f"{self.run_dir} has no intact checkpoint left (damaged: {len(steps)})")
        return None

    def recover(self) -> None:
        """Undo what a killed writer left half-done; called by the one process that is about to write."""
        if self.run_dir.is_dir():
            sweep(self.run_dir, disk=self._disk)
            self._prune()

    def discard_after(self, step: int) -> None:
        """Remove checkpoints beyond `step`, from which the run is about to go another way."""
        for later in self.steps():
            if later > step:
                self._remove(later)

    def _read(self, step: int) -> Checkpoint:
        checkpoint = read_checkpoint(self.path(step))
        if checkpoint.step != step:
            raise CheckpointError(f"the checkpoint {checkpoint.path} is misnamed: it holds step {checkpoint.step}")
        return checkpoint

    def _prune(self) -> None:
        for step in self.steps()[: -self.keep]:
            self._remove(step)

    def _remove(self, step: int) -> None:
        try:
            remove_folder(self.path(step), disk=self._disk)
        except OSError as error:
            self._report(f"{self.path(step)} could not be removed: {error.strerror or error}")


def _files(about: Mapping[str, Any], tensors: Groups, state: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every file of a checkpoint in the order in which it is written, the manifest last."""
    listed: dict[str, dict[str, Any]] = {}

    def listing(name: str, data: bytes) -> tuple[str, bytes]:
        if not _FILE.fullmatch(name):
            raise InputError(f"{name!r} cannot name a group of tensors: use lower-case letters, digits, - and _")
        listed[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return name, data

    for group, named in tensors.items():
        yield listing(f"{group}.safetensors", _encode(group, named))
    yield listing(STATE, state)
    manifest = {"format": FORMAT, "version": VERSION, **about, "files": listed}
    yield MANIFEST, json_text.dumps({**manifest, "sha256": _seal(manifest)}, what=MANIFEST, indent=2).encode()


def _seal(manifest: Mapping[str, Any]) -> str:
    """The manifest's own checksum, over everything else in it."""
    return hashlib.sha256(json_text.dumps(manifest, what=MANIFEST).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json_text.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not a checkpoint, or not a whole one: it has no {MANIFEST}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {MANIFEST} cannot be read as JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this program: {MANIFEST} does not say {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            f"the checkpoint {path} has version {manifest.get('version')!r}, but this program reads version {VERSION}"
        )
    seal = manifest.pop("sha256", None)
    if seal != _seal(manifest):
        raise CheckpointError(f"the checkpoint {path} is damaged: {MANIFEST} does not match its own checksum")
    if STATE not in manifest["files"] or not all(_FILE.fullmatch(name) for name in manifest["files"]):
        raise CheckpointError(f"{path} is not a checkpoint of this program: its files are {_list(manifest['files'])}")
    return manifest


def _read_file(path: Path, name: str, about: Mapping[str, Any]) -> bytes:
    try:
        data = (path / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {name} cannot be read ({error.strerror or error})"
        ) from error
    if len(data) != about["size"]:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {name} has {len(data)} bytes, but {about['size']} were written"
        )
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise CheckpointError(f"the checkpoint {path} is damaged: {name} does not match its SHA-256")
    return data


def _encode(group: str, named: Mapping[str, Tensor]) -> bytes:
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise InputError(f"the {group} entry {name!r} is not a dense tensor, and only those can be stored")
        cpu = tensor.detach().cpu().contiguous()
        # The format stores no aliases: each name of shared storage gets its own copy.
        storage = cpu.untyped_storage().data_ptr()
        plain[name] = cpu.clone() if storage in seen else cpu
        seen.add(storage)
    try:
        return save(plain, metadata={"format": "pt"})
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(f"the {group} tensors cannot be stored as safetensors: {error}") from error


def _decode(path: Path, name: str, data: bytes) -> dict[str, Tensor]:
    try:
        read = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: {name} is not a safetensors file") from error
    # Cloned, because kernels may round differently on memory that torch's allocator has not aligned.
    return {key: tensor.clone() for key, tensor in read.items()}


def _signature(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _list(names: Any, limit: int = 3) -> str:
    found = sorted(names)
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(repr(name) for name in found[:limit]) + more
