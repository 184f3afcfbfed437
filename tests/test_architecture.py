"""The house rules that a machine can hold: which room imports which, and what may not appear anywhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "contexture"
ORDER = (
    "protocols",
    "ops",
    "leaves",
    "store",
    "tables",
    "mixers",
    "blocks",
    "models",
    "learners",
    "environments",
    "agents",
    "tasks",
    "training",
    "evaluation",
    "probes",
    "claims",
    "testing",
    "transforms",
    "estimators",
    "papers",
    "reports",
    "catalogue",
    "selection",
    "api",
    "commands",
    "cli",
)
ANYONE_MAY = {"errors", "randomness", "discovery", "weights"}
OUTSIDE_THE_ORDER = {"__init__", "errors", "randomness", "discovery", "weights"}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "contexture" else [f"contexture.{a.name}" for a in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("contexture.")}
    return {room for room in rooms if not room.startswith("__")}


def violations(path: Path, room: str) -> list[str]:
    allowed = set(ORDER[: ORDER.index(room) + 1]) | ANYONE_MAY
    return [f"{path.name} in {room} imports {other}" for other in imported_rooms(path) - allowed]


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_every_room_has_a_place_in_the_order() -> None:
    assert {room_of(path) for path in modules()} <= set(ORDER) | OUTSIDE_THE_ORDER


def test_imports_go_one_way() -> None:
    broken = []
    for path in modules():
        if room_of(path) not in OUTSIDE_THE_ORDER:
            broken += violations(path, room_of(path))
    assert broken == []


def test_a_backward_import_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def late():\n    from contexture.learners.classical import ols\n", encoding="utf-8")
    assert violations(planted, "ops") == ["planted.py in ops imports learners"]


FORBIDDEN = re.compile(r"^\s*(import|from)\s+(pickle|cPickle|dill|joblib)\b|\btorch\.(save|load)\(", re.MULTILINE)


def test_no_pickle_is_read_or_written() -> None:
    assert [path.name for path in modules() if FORBIDDEN.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("line", ["import pickle\n", "    state = torch.load(path)\n", "from joblib import dump\n"])
def test_the_search_for_pickles_finds_them(line: str) -> None:
    assert FORBIDDEN.search(line)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines()]


ABSOLUTE = re.compile(r"(?<![\w.])/(work|tmp|root|home)/\w")


def test_no_absolute_path_of_a_machine_is_tracked() -> None:
    text = [
        p for p in tracked() if p.suffix in {".py", ".md", ".toml", ".json", ".rst", ".css", ".html"} and p.exists()
    ]
    assert text
    assert [str(p) for p in text if p != Path(__file__) and ABSOLUTE.search(p.read_text(encoding="utf-8"))] == []


def test_help_needs_no_torch() -> None:
    code = "import sys; from contexture.cli import parser; parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_discovery_and_the_command_line_import_papers() -> None:
    rooms = {room_of(path) for path in modules() if "papers" in imported_rooms(path)}
    assert rooms <= {"papers", "discovery", "commands", "cli"}
