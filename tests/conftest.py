import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# Test processes run side by side, one to a core: more threads in each only make them wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def contexture_data() -> Path:
    """The folder of real data that the project does not ship; tests that need it name what they skipped."""
    folder = Path(os.environ.get("CONTEXTURE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set CONTEXTURE_DATA)")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
