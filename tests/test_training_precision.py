import pytest
import torch

from contexture.errors import InputError
from contexture.training import precision
from contexture.training.precision import PRECISIONS, autocast, require_precision, resolve


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "fp32"),
        (["avx2"], "fp32"),
        (["avx2", "avx512f"], "fp32"),
        (["avx2", "avx512f", "avx512_bf16"], "bf16"),
        (["amx_tile", "amx_bf16"], "bf16"),
        (["asimd", "bf16"], "bf16"),
    ],
)
def test_auto_is_bf16_only_where_the_processor_multiplies_it(monkeypatch, flags, expected):
    monkeypatch.setattr(precision, "instruction_sets", lambda: flags)
    assert resolve("auto") == expected
    with autocast("auto"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if expected == "bf16" else torch.float32)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp64"])
def test_what_is_asked_for_is_never_overruled(monkeypatch, name):
    monkeypatch.setattr(precision, "instruction_sets", lambda: [])
    assert resolve(name) == name


def test_an_unknown_precision_names_those_that_exist():
    with pytest.raises(InputError, match="auto, fp32, bf16, fp64"):
        require_precision("fp8")
    for name in PRECISIONS:
        require_precision(name)
