"""What a training step on a CPU does besides its large products, compiled from `compiled.c` at its first use.

A C compiler makes it for the processor at hand, in some seconds, once: the library lies beside the bytecode of this
module, or in `$PEFTLAB_CACHE` where that folder cannot be written. Where there is no compiler, or PEFTLAB_COMPILED is
`off`, torch and numpy do the same in more passes over memory: the same masks, the same values to float tolerance.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peftlab.encoders.prefix_store import cache_folder

VARIABLE = "PEFTLAB_COMPILED"
LANES = 16
"""The widths of matrices must be multiples of this."""
_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = "-std=gnu11 -O3 -march=native -fno-math-errno -fno-trapping-math -shared -fPIC"
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120
"""What a compiler may take."""
_WORTH_A_THREAD = 500_000
"""Values whose work takes as long as handing it to another thread several times over."""
_INT, _ADDRESS, _FLOAT = ctypes.c_int64, ctypes.c_void_p, ctypes.c_float


class _Field(ctypes.Structure):
    """A tensor [texts, heads, tokens, width] whose last dimension is contiguous: its address and strides in values."""

    _fields_ = (("at", _ADDRESS), ("text", _INT), ("head", _INT), ("token", _INT))


_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "draw": (_ADDRESS, _INT, ctypes.c_uint32, ctypes.c_uint64, _ADDRESS),
    "masked": (_ADDRESS, _ADDRESS, _FLOAT, _ADDRESS, _INT),
    "narrow": (_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, _INT, _INT, _INT, _INT),
    "widen": (_ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS, _INT, _INT, _INT, _INT),
    "lora_back": (*[_ADDRESS] * 9, *[_INT] * 6),
    "attend": (*[_Field] * 4, _ADDRESS, _FLOAT, _FLOAT, _Field, _ADDRESS, *[_INT] * 6),
    "attend_back": (*[_Field] * 4, _ADDRESS, _FLOAT, _FLOAT, _ADDRESS, *[_Field] * 4, *[_INT] * 6),
}


@dataclass(frozen=True)
class Kernels:
    """The compiled functions. Tensors are on the CPU, in fp32; `kept` is boolean; matrices and masks are contiguous."""

    library: Any

    def draw(self, bits: Any, blocks: int, low: int, share: int, kept: Tensor) -> None:
        """Draw `blocks` times 1,024 bytes from numpy's SFC64 into `kept`, as `masks.py` says."""
        self.library.draw(bits.ctypes.state_address, blocks, low, share, kept.data_ptr())

    def masked(self, values: Tensor, kept: Tensor, scale: float) -> Tensor:
        """Return `scale` times `values`, 0 where `kept` is False; both of any shape, the same."""
        out = torch.empty_like(values)
        addresses = (values.data_ptr(), kept.data_ptr(), out.data_ptr())
        _spread(values.numel(), 1, lambda i, end: self._masked_part(addresses, scale, i, end), _parts(values.numel()))
        return out

    def _masked_part(self, addresses: tuple[int, int, int], scale: float, i: int, end: int) -> None:
        values, kept, out = addresses
        self.library.masked(values + 4 * i, kept + i, scale, out + 4 * i, end - i)

    def narrow(self, x: Tensor, kept: Tensor | None, a: Tensor, out: Tensor) -> None:
        """Write a d(x)^T to `out` [r, rows]. x: [rows, d]; a: [r, d]; d(x) is 0 where `kept` is False."""
        rows, width = x.shape

        def part(i: int, end: int) -> None:
            self.library.narrow(
                _at(x, i * width), _mask_at(kept, i * width), _at(a), _at(out, i), rows, end - i, width, len(a)
            )

        _spread(rows, 2, part, _parts(x.numel()))

    def widen(self, c: Tensor, a: Tensor, bias: Tensor | None, out: Tensor) -> None:
        """Write c^T a + bias to `out` [rows, d]. c: [r, rows]; a: [r, d]; bias: [d]."""
        rows, width = out.shape

        def part(i: int, end: int) -> None:
            self.library.widen(
                _at(c, i),
                _at(a),
                None if bias is None else _at(bias),
                _at(out, i * width),
                rows,
                end - i,
                width,
                len(a),
            )

        _spread(rows, 2, part, _parts(out.numel()))

    def lora_back(
        self,
        outer: Tensor,
        wide: Tensor,
        inner: Tensor,
        x: Tensor,
        kept: Tensor | None,
        a: Tensor,
        *,
        x_asked: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients of `wide`, `a` and, where it is asked for, x through these two, of y = inner^T wide.

        outer, the gradient of y: [rows, d_out]; wide: [r, d_out]; inner = a d(x)^T: [r, rows]; x: [rows, d_in].
        """
        (rows, width), (rank, d_out) = x.shape, wide.shape
        parts = _parts(x.numel() + outer.numel())
        sums = x.new_zeros(parts, rank, width + d_out)
        x_gradient = torch.empty_like(x) if x_asked else None
        target = None if x_gradient is None else _at(x_gradient)
        given = (_at(outer), _at(wide), _at(inner), _at(x), _mask_at(kept), _at(a))
        size = -(-rows // parts)

        def part(i: int, end: int) -> None:
            own = sums[i // size]
            sums_at = (_at(own), _at(own, rank * d_out))
            self.library.lora_back(*given, *sums_at, target, rows, i, end, width, d_out, rank)

        _spread(rows, size, part, parts)
        total = sums[0] if parts == 1 else sums.sum(0)
        wide_gradient, a_gradient = total.view(-1).split((rank * d_out, rank * width))
        return wide_gradient.view(rank, d_out), a_gradient.view(rank, width), x_gradient

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, kept: Tensor | None, scale: float, kept_scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed values [texts, queries, heads, width], and for `attend_back` [texts, heads, queries, 2].

        q: [texts, heads, queries, width]; k, v: [texts, heads, keys, width]; bias, added to the scaled scores:
        [texts, heads, queries, keys], expanded where it is the same; kept: [texts, heads, queries, keys].
        """
        texts, heads, queries, width = q.shape
        out = q.new_empty(texts, queries, heads, width)
        stats = q.new_empty(texts, heads, queries, 2)
        fields = (*map(_field, (q, k, v, bias)), _mask_at(kept), scale, kept_scale, _field(out.transpose(1, 2)))
        sizes = (heads, queries, k.shape[2], width)

        def part(i: int, end: int) -> None:
            _must(self.library.attend(*fields, stats.data_ptr(), *sizes, i, end))

        _spread(texts * heads, 1, part, _parts(4 * stats.numel() * k.shape[2]))
        return out, stats

    def attend_back(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        kept: Tensor | None,
        scale: float,
        kept_scale: float,
        stats: Tensor,
        gradient: Tensor,
        asked: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v that are `asked` for. gradient: that of the mixed values, as these are."""
        texts, heads, queries, width = q.shape
        found = tuple(torch.empty_like(one) if wanted else None for one, wanted in zip((q, k, v), asked, strict=True))
        fields = (*map(_field, (q, k, v, bias)), _mask_at(kept), scale, kept_scale, stats.data_ptr())
        targets = tuple(map(_field, (gradient.transpose(1, 2), *found)))

        def part(i: int, end: int) -> None:
            _must(self.library.attend_back(*fields, *targets, heads, queries, k.shape[2], width, i, end))

        _spread(texts * heads, 1, part, _parts(8 * stats.numel() * k.shape[2]))
        return found


def _at(tensor: Tensor, offset: int = 0) -> int:
    return tensor.data_ptr() + 4 * offset


def _mask_at(kept: Tensor | None, offset: int = 0) -> int | None:
    return None if kept is None else kept.data_ptr() + offset


def _field(tensor: Tensor | None) -> _Field:
    return _Field(None, 0, 0, 0) if tensor is None else _Field(tensor.data_ptr(), *tensor.stride()[:3])


def _must(failed: int) -> None:
    if failed:
        raise MemoryError("attention: no memory for the scores of one head")


def _parts(values: int) -> int:
    """Return by how many threads the work on so many values is to be done."""
    return max(1, min(torch.get_num_threads(), values // _WORTH_A_THREAD))


def _spread(count: int, step: int, call: Callable[[int, int], None], parts: int) -> None:
    """Let `parts` threads `call` ranges of `count` units, each but the last a multiple of `step`."""
    if parts == 1:
        call(0, count)
        return
    size = -(-count // (parts * step)) * step
    ranges = [(start, min(start + size, count)) for start in range(0, count, size)]
    waiting = [_pool(parts - 1).submit(call, *one) for one in ranges[1:]]
    call(*ranges[0])
    for one in waiting:
        one.result()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "compiled")


@cache
def kernels() -> Kernels | None:
    """Return the compiled functions; None where there are none, and `why_not` says why."""
    found = _load()
    return found if isinstance(found, Kernels) else None


def why_not() -> str | None:
    """Return why there are no compiled functions, as part of a sentence; None where there are."""
    found = _load()
    return None if isinstance(found, Kernels) else found


@cache
def _load() -> Kernels | str:
    if os.environ.get(VARIABLE) == "off":
        return f"{VARIABLE} is off"
    command = _compiler()
    if command is None:
        return "no C compiler was found (cc, gcc or clang, or what CC names)"
    name = f"compiled.{_key(command)}.so"
    folders = [_SOURCE.parent / "__pycache__", cache_folder("compiled")]
    for folder in folders:
        if (folder / name).is_file():
            return _opened(folder / name)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="compiled.") as beside:
                failure = _compile(command, Path(beside) / name)
                if failure is not None:
                    return failure
                (Path(beside) / name).replace(folder / name)
        except OSError:
            continue
        return _opened(folder / name)
    return f"neither {folders[0]} nor {folders[1]} can be written"


def _compiler() -> tuple[str, ...] | None:
    """Return the words of the C compiler's command: what CC says, else the first there is."""
    named = shlex.split(os.environ.get("CC", ""))
    for words in [named] if named else [[name] for name in _COMPILERS]:
        path = shutil.which(words[0])
        if path is not None:
            return (path, *words[1:])
    return None


def _key(command: tuple[str, ...]) -> str:
    """Return a name for what the library follows from: source, compiler, and the processor's abilities."""
    parts = [_SOURCE.read_bytes(), _FLAGS.encode(), " ".join(command).encode(), "\n".join(_abilities()).encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _abilities() -> Iterator[str]:
    yield from (platform.system(), platform.machine(), platform.processor())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))})


def _compile(command: tuple[str, ...], target: Path) -> str | None:
    """Compile to `target`; return why that failed, None where it did not. Raises OSError."""
    words = [*command, *_FLAGS.split(), "-o", str(target), str(_SOURCE), "-lm"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than {_SECONDS} s"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"{command[0]} failed: {said[0]}"


def _opened(path: Path) -> Kernels | str:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"{path} cannot be loaded: {error}"
    for name, arguments in _ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
    return Kernels(library)
