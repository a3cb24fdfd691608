"""A folder laid out like `hfl/rbt3`: 3 layers of width 768, 21,128 pieces, with pickled weights or safetensors."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch

from peftlab.encoders.load import HeadShape, load_classifier, load_tokenizer
from peftlab.encoders.source import find_encoder
from peftlab.errors import EncoderError
from peftlab.recipe.load import read_recipe
from peftlab.recipe.records import Encoder

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = 21_128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with random weights in `pytorch_model.bin`, as the hub has it, its head included."""
    from transformers import BertConfig, BertForMaskedLM

    made = tmp_path_factory.mktemp("hfl") / "rbt3"
    made.mkdir()
    config = BertConfig(vocab_size=VOCABULARY, num_hidden_layers=3, pad_token_id=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(config)
    config.save_pretrained(made)
    torch.save(model.state_dict(), made / "pytorch_model.bin")
    specials = ["[PAD]", *(f"[unused{number}]" for number in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [chr(0x4E00 + number) for number in range(VOCABULARY - len(specials))]
    (made / "vocab.txt").write_text("\n".join([*specials, *characters]) + "\n", encoding="utf-8")
    return made


def logits(folder: Path) -> torch.Tensor:
    """Return the logits of one text under a head from a fixed seed."""
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(1)
    loaded = load_classifier(Encoder(name=str(folder), pooling="mean"), folder, HeadShape(5, dropout=0.1))
    encoded = tokenizer(["一丁七 unknown"], return_tensors="pt")
    with torch.inference_mode():
        return loaded.model(**encoded).logits


def test_the_shipped_recipe_finds_and_loads_it_by_an_override(folder: Path) -> None:
    recipe = read_recipe(ROOT / "recipes" / "lora_rbt3.toml", [f"encoder.name={folder}"])
    assert recipe.encoder is not None
    files = find_encoder(recipe.encoder, beside=recipe.path.parent)

    assert files.kind == "local"
    assert files.folder == folder
    assert len(load_tokenizer(files.folder)) == VOCABULARY
    assert logits(folder).shape == (1, 5)


def test_pickled_weights_and_safetensors_give_the_same_logits(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for path in folder.iterdir():
        if path.name != "pytorch_model.bin":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )

    assert torch.equal(logits(folder), logits(tmp_path))


class _Payload:
    """What a harmful pickle does when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (sys.intern, ("peftlab-was-here",))


def test_a_pickle_that_holds_code_is_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.name != "pytorch_model.bin":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"bert.embeddings.word_embeddings.weight": _Payload()}, file, protocol=2)

    with pytest.raises(EncoderError, match="cannot be loaded as an encoder"):
        logits(tmp_path)
