"""The adapter alone, in peft's own format, to be put on the encoder that it was trained on.

Loads with plain `PeftModel.from_pretrained`, where the head is the architecture's own and the encoder is in fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftlab.evaluation.export_source import Source, Written
from peftlab.evaluation.forward import Forward, as_forward
from peftlab.runs.certificate import Dtype, Exported

if TYPE_CHECKING:
    from torch import nn

PACKAGES: tuple[str, ...] = ()
EXTRA: str | None = None
DTYPES: tuple[Dtype, ...] = ("fp32",)
TAKES: Literal["adapters"] = "adapters"
MAX_DRIFT = 1e-5


def write(source: Source, folder: Path) -> Written:
    """Write adapter and tokenizer; a CRF is no part of it, so that it fits transformers' own token classifier."""
    import shutil

    from peftlab.encoders.plain_folder import write_tokenizer
    from peftlab.encoders.saved import drop_saved_module
    from peftlab.encoders.token_head import CRF
    from peftlab.runs.model_record import TRAINED

    for path in sorted((source.folder / TRAINED).iterdir()):
        shutil.copy2(path, folder / path.name)
    drop_saved_module(folder, CRF)
    write_tokenizer(source.run.tokenizer, folder, source.exported.max_length)
    return Written(merged=False, loads_with=("peft", "transformers") if _is_plain(source) else ("peftlab",))


def load(folder: Path, exported: Exported) -> Forward:
    """Load the encoder again and put the adapter on it; EncoderError where the encoder is another, or away."""
    import torch

    from peftlab.encoders.load import HeadShape, load_classifier
    from peftlab.encoders.saved import load_trained
    from peftlab.encoders.source import find_again
    from peftlab.encoders.token_head import load_tagger
    from peftlab.recipe.records import Encoder

    known = exported.encoder
    files = find_again(known.used, known.revision, known.sha256, Path(known.folder or f"/{known.used}"))
    settings: dict[str, Any] = {"name": known.used, "pooling": known.pooling, "dtype": known.dtype}
    encoder = Encoder.model_validate({**settings, "load_in": known.load_in})
    device = torch.device("cpu")
    if exported.each_token:
        bare = load_tagger(encoder, files.folder, exported.labels, 0.0, crf=False, device=device)
    else:
        bare = load_classifier(encoder, files.folder, HeadShape(len(exported.labels), 0.0), device=device)
    return as_forward(load_trained(bare.model, folder, _only_peft), device)


def usage(exported: Exported) -> str:
    """Return Python that gives `logits` of `texts`, `folder` being the export."""
    from peftlab.evaluation.export_usage import inputs_code, tags_code

    if exported.loads_with == ("peftlab",):
        return (
            "from pathlib import Path\n\nfrom peftlab.shipping.loading import load_export\n\n"
            f"{'answers' if exported.each_token else 'logits'} = load_export(Path(folder))."
            f"{'rows(texts)' if exported.each_token else 'logits(texts, None)'}"
        )
    used = exported.encoder.folder or exported.encoder.used
    if exported.encoder.pooling == "native":
        model, before = f"AutoModelFor{'Token' if exported.each_token else 'Sequence'}Classification", ""
        make = f"base = {model}.from_pretrained({used!r}, num_labels={len(exported.labels)})"
    else:
        make = f"base = Pooled(AutoModel.from_pretrained({used!r}, dtype=torch.float32), {len(exported.labels)})"
        model, before = "AutoModel", _OUTPUT + _POOLED.format(pool=_POOL[exported.encoder.pooling])
    return f"""import torch
from peft import PeftModel
from transformers import {model}, AutoTokenizer
{before}
{make}
model = PeftModel.from_pretrained(base, folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
{inputs_code(exported, "pt")}
with torch.inference_mode():
    logits = model(**inputs).logits.numpy(){tags_code(exported)}"""


_POOL = {
    "mean": "(hidden * mask).sum(1) / mask.sum(1)",
    "cls": "hidden[:, 0]",
}
_OUTPUT = "from transformers.modeling_outputs import SequenceClassifierOutput\n"
_POOLED = """

class Pooled(torch.nn.Module):
    def __init__(self, encoder, labels):
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self.classifier = torch.nn.Linear(encoder.config.hidden_size, labels)

    def forward(self, input_ids, attention_mask, token_type_ids=None, **_):
        segments = {{}} if token_type_ids is None else {{"token_type_ids": token_type_ids}}
        hidden = self.encoder(input_ids, attention_mask, **segments).last_hidden_state
        mask = attention_mask.unsqueeze(-1).float()
        return SequenceClassifierOutput(logits=self.classifier({pool}))


"""


def _is_plain(source: Source) -> bool:
    """Say whether peft alone can load it: it knows the method, and the encoder's types are those that it loads in."""
    settings: Any = source.run.module
    known = all(type(one).__module__.startswith("peft.") for one in settings.peft_config.values())
    return known and source.run.encoder.load_in == "full" and source.run.encoder.dtype in ("auto", "fp32")


def _only_peft(_: nn.Module) -> nn.Module:
    raise AssertionError("an export of this format holds a peft adapter")
