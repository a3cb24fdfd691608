"""The compiled parts of a training step: the masks, values and gradients of torch and numpy, and what a run says."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peftlab import train
from peftlab.runs.result import read_result
from peftlab.training import attention as attention_module
from peftlab.training import compiled, lora_product, masks, solve_gradient
from peftlab.training.attention import Biases, attention
from peftlab.training.masks import MaskSource

COMPILER = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
needs_compiler = pytest.mark.skipif(not COMPILER, reason="absent: a C compiler")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function after which modules find no compiled functions."""

    def hide(*modules: ModuleType) -> None:
        for module in modules:
            monkeypatch.setattr(module, "kernels", lambda: None)

    return hide


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Return a function that sets the threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_compiler
def test_they_are_there_where_a_compiler_is() -> None:
    """Otherwise all other tests would compare a thing with itself."""
    assert compiled.why_not() is None
    assert compiled.kernels() is not None


@needs_compiler
@pytest.mark.parametrize("p", [0.003, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(7,), (1024,), (33, 65), (2, 3, 1025)])
def test_masks_are_the_same_bits(p: float, shape: tuple[int, ...], without: Callable[..., None]) -> None:
    """Also the second one, which follows from where the first left the generator."""

    def drawn() -> list[Tensor]:
        torch.manual_seed(3)
        source = MaskSource()
        source.restart()
        return [source.kept(torch.Size(shape), p) for _ in range(2)]

    found = drawn()
    without(masks)
    for one, other in zip(found, drawn(), strict=True):
        assert one.dtype == torch.bool
        assert torch.equal(one, other)
    if len(found[0].view(-1)) > 100:
        assert 0 < int(found[0].sum()) + int(p > 0.9) <= found[0].numel()


@needs_compiler
@pytest.mark.parametrize("size", [1, 15, 16, 17, 40_003])
def test_dropout_is_the_same_to_the_bit(size: int, without: Callable[..., None]) -> None:
    """The product with the mask and the scale, of infinite values too where they are kept."""
    values, kept = torch.randn(size), torch.rand(size) > 0.3
    values[-1], kept[-1] = float("inf"), True
    found = masks.masked(values, kept, 1.25)
    without(masks)
    assert torch.equal(found, masks.masked(values, kept, 1.25))


def _lora(rows: int, d_in: int, d_out: int, rank: int, *, dropped: bool, bias: bool) -> list[Tensor]:
    """Return the output of the layer and the gradients of x, a and b."""
    torch.manual_seed(0)
    x, a, b = (torch.randn(shape, requires_grad=True) for shape in ((rows, d_in), (rank, d_in), (d_out, rank)))
    weight = torch.randn(d_out, d_in)
    kept = torch.rand(rows, d_in) > 0.3 if dropped else None
    y: Tensor = lora_product._LoraLinear.apply(x, weight, torch.randn(d_out) if bias else None, a, b, kept, 1.7)
    return [y.detach(), *torch.autograd.grad(y, (x, a, b), torch.randn(rows, d_out))]


@needs_compiler
@pytest.mark.parametrize(
    ("rows", "d_in", "d_out", "rank"),
    [(1, 16, 32, 1), (2, 32, 16, 2), (5, 48, 64, 3), (67, 64, 16, 8), (66, 16, 48, 13), (130, 384, 1536, 16)],
)
@pytest.mark.parametrize("dropped", [True, False])
def test_a_low_rank_layer_has_torch_s_values_and_gradients(
    rows: int, d_in: int, d_out: int, rank: int, dropped: bool, without: Callable[..., None]
) -> None:
    """To 1e-5 of the largest value, for ranks and rows that fill no group."""
    found = _lora(rows, d_in, d_out, rank, dropped=dropped, bias=rows % 2 == 0)
    without(lora_product)
    for one, other in zip(found, _lora(rows, d_in, d_out, rank, dropped=dropped, bias=rows % 2 == 0), strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


@needs_compiler
def test_widths_that_fill_no_lanes_are_left_to_torch(without: Callable[..., None]) -> None:
    """TinyBERT's 312 is no multiple of 16: the same values to the bit, since it is the same code."""
    found = _lora(9, 312, 312, 4, dropped=True, bias=True)
    without(lora_product)
    for one, other in zip(found, _lora(9, 312, 312, 4, dropped=True, bias=True), strict=True):
        assert torch.equal(one, other)


SHAPES = [(2, 2, 1, 5, 64), (3, 2, 7, 7, 16), (2, 3, 33, 20, 32), (1, 2, 17, 130, 96), (2, 1, 128, 128, 64)]


def _attended(shape: tuple[int, ...], p: float, *, by_token: bool, masked: str) -> list[Tensor]:
    """Return what attention gives, and the gradients of queries, keys and values."""
    texts, heads, queries, keys, width = shape
    torch.manual_seed(1)

    def states(tokens: int) -> Tensor:
        order = (texts, tokens, heads, width) if by_token else (texts, heads, tokens, width)
        return torch.randn(order, requires_grad=True)

    leaves = [states(queries), states(keys), states(keys)]
    q, k, v = (leaf.transpose(1, 2) if by_token else leaf for leaf in leaves)
    bias = None
    if masked != "none":
        mask = torch.rand(texts, 1, queries if masked == "each query" else 1, keys) > 0.4
        mask[..., 0] = True
        if masked == "a text without keys":
            mask[0] = False
        bias = Biases().of(mask)
    source = MaskSource()
    source.restart()
    mixed = attention(q, k, v, bias, p=p, scale=0.3, source=source)
    return [mixed.detach(), *torch.autograd.grad(mixed, leaves, torch.randn(texts, queries, heads, width))]


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("masked", ["none", "each text", "each query", "a text without keys"])
def test_attention_is_that_of_its_parts(
    shape: tuple[int, ...], by_token: bool, masked: str, without: Callable[..., None]
) -> None:
    """Values and gradients to 1e-5 of the largest, under the same masks."""
    found = _attended(shape, 0.2, by_token=by_token, masked=masked)
    without(attention_module)
    for one, other in zip(found, _attended(shape, 0.2, by_token=by_token, masked=masked), strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


def test_a_text_without_keys_has_numbers_in_bf16_too() -> None:
    """The mean of its values, as with any scores that are all the same."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 16).to(torch.bfloat16) for _ in range(3))
    bias = Biases().of(torch.zeros(1, 1, 1, 5, dtype=torch.bool))
    found = attention(q, k, v, bias, p=0.0, scale=0.3, source=MaskSource())
    assert torch.allclose(found.float(), v.float().mean(2, keepdim=True).transpose(1, 2).expand_as(found), atol=0.02)


@needs_compiler
def test_attention_of_large_scores_is_that_of_double_precision() -> None:
    """Scores of some hundreds, where an exponential that is not taken from the largest overflows."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 9, 32, dtype=torch.double) * factor for factor in (30, 30, 1))
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2)
    found = attention(q.float(), k.float(), v.float(), None, p=0.0, scale=1.0, source=MaskSource())
    assert float((q @ k.transpose(2, 3)).max()) > 500
    assert float((found - exact).abs().max()) < 1e-3  # scores of 500 are known to 3e-5 in fp32


@needs_compiler
def test_gradients_that_nobody_asks_for_are_not_computed() -> None:
    """Frozen keys in the first layer have none."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 6, 16, requires_grad=asked) for asked in (True, False, True))
    attention(q, k, v, None, p=0.1, scale=0.3, source=MaskSource()).square().sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert v.grad is not None
    assert k.grad is None


@needs_compiler
def test_threads_change_no_bit_but_in_sums_over_rows(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention, masks and outputs are the same bits with three threads; gradients of LoRA agree to 1e-5."""
    monkeypatch.setattr(compiled, "_WORTH_A_THREAD", 100)
    results = []
    for count in (1, 3):
        threads(count)
        attended = _attended((5, 3, 17, 19, 32), 0.2, by_token=True, masked="each text")
        results.append((attended, _lora(67, 64, 48, 9, dropped=True, bias=True)))
    (attended, lora), (others, lora_others) = results
    for one, other in zip(attended, others, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(lora, lora_others, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


@needs_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="absent: a processor with AVX to leave out")
@pytest.mark.parametrize("lacking", ["-mno-avx512f", "-mno-avx"])
def test_processors_with_shorter_registers_have_the_same_values(lacking: str, tmp_path: Path) -> None:
    """What is compiled for them agrees to 1e-5 of the largest value, and masks to the bit."""
    command = compiled._compiler()
    assert command is not None
    assert compiled._compile((*command, lacking), tmp_path / "shorter.so") is None
    shorter, usual = compiled._opened(tmp_path / "shorter.so"), compiled.kernels()
    assert isinstance(shorter, compiled.Kernels)
    assert usual is not None
    torch.manual_seed(0)
    q, k, v, gradient = (torch.randn(2, 19, 3, 32) for _ in range(4))
    heads = [one.transpose(1, 2) for one in (q, k, v)]
    kept, x, a, wide = torch.rand(2, 3, 19, 19) > 0.2, torch.randn(21, 48), torch.randn(7, 48), torch.randn(7, 64)
    dropped, outer = torch.rand(21, 48) > 0.3, torch.randn(21, 64)
    found = []
    for one in (shorter, usual):
        mixed, stats = one.attend(*heads, None, kept, 0.3, 1.25)
        inner, y = torch.empty(7, 21), torch.empty(21, 64)
        one.narrow(x, dropped, a, inner)
        one.widen(inner, wide, outer[0], y)
        back = one.lora_back(outer, wide, inner, x, dropped, a, x_asked=True)
        attended = one.attend_back(*heads, None, kept, 0.3, 1.25, stats, gradient, (True, True, True))
        found.append([mixed, inner, y, *back, *attended, one.masked(x, dropped, 1.5)])
    for short, long in zip(*found, strict=True):
        assert short is not None
        assert long is not None
        assert float((short - long).abs().max()) <= 1e-5 * float(long.abs().max())


@given(count=st.integers(1, 500), step=st.integers(1, 20), parts=st.integers(1, 7))
def test_ranges_cover_everything_once(count: int, step: int, parts: int) -> None:
    """And begin at multiples of the step; no more threads take part than were said."""
    done: list[tuple[int, int]] = []
    compiled._spread(count, step, lambda start, end: done.append((start, end)), parts)
    done.sort()
    assert [number for start, end in done for number in range(start, end)] == list(range(count))
    assert all(start % step == 0 for start, _ in done)
    assert len(done) <= parts


SCRIPT = """
from peftlab.training import compiled
found = compiled.kernels()
print("none" if found is None else found.library._name)
print(compiled.why_not())
"""


def _said(**environment: str) -> list[str]:
    """Return what a new process says of the library and of why there is none."""
    words = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()


def test_a_run_that_goes_without_says_so(
    tiny_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the console and in its result; one that goes with them says nothing of it."""
    words = [str(tiny_recipe()), "train.max_steps=2"]
    assert train.main([*words, f"run.dir={tmp_path / 'with'}"]) == 0
    said = any("would be compiled" in note for note in read_result(tmp_path / "with").notes)
    assert said == (compiled.why_not() is not None)
    monkeypatch.setattr(solve_gradient, "why_not", lambda: "no C compiler was found")
    capsys.readouterr()
    assert train.main([*words, f"run.dir={tmp_path / 'without'}"]) == 0
    sentence = "what would be compiled, which takes longer: no C compiler was found"
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert any(sentence in note for note in read_result(tmp_path / "without").notes)


def test_no_compiler_is_said(tmp_path: Path) -> None:
    """With the name of what was asked for, and without looking further."""
    found = _said(CC=str(tmp_path / "nothing"))
    assert found == ["none", "no C compiler was found (cc, gcc or clang, or what CC names)"]
    assert _said(PEFTLAB_COMPILED="off") == ["none", "PEFTLAB_COMPILED is off"]


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    """By the first line that it wrote, and nothing of what it began is left."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no such option: -O3' >&2\nexit 3\n")
    broken.chmod(0o755)
    before = _libraries()
    assert _said(CC=str(broken)) == ["none", f"{broken} failed: no such option: -O3"]
    assert _libraries() == before


def _libraries() -> set[str]:
    return {path.name for path in (Path(compiled.__file__).parent / "__pycache__").glob("compiled.*")}


@needs_compiler
def test_a_package_that_cannot_be_written_to_leaves_the_library_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete, with nothing beside it; a second process takes it from there."""
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(Path(compiled.__file__).with_suffix(".c"), package / "compiled.c")
    (package / "__pycache__").write_text("a file, where a folder would have to be")
    monkeypatch.setattr(compiled, "_SOURCE", package / "compiled.c")
    monkeypatch.setenv("PEFTLAB_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        found: Any = compiled._load.__wrapped__()
        assert isinstance(found, compiled.Kernels), found
        (only,) = (tmp_path / "cache" / "compiled").iterdir()
        assert found.library._name == str(only)
    (tmp_path / "cache" / "compiled").chmod(0o755)
    assert np.frombuffer(only.read_bytes()[:4], np.uint8).tolist() == [127, 69, 76, 70] or sys.platform != "linux"
