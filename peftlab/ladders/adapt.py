"""Task-adaptive pretraining as a step of a rung: the encoder first reads the training texts.

After Gururangan et al. 2020, arXiv 2004.10964.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomlkit

from peftlab.encoders.saved import folder_bytes
from peftlab.errors import UserError
from peftlab.ladders.account import Account
from peftlab.ladders.ladder import LadderCeilings, Rung
from peftlab.ladders.trials import Do
from peftlab.runs.code import code_hash
from peftlab.runs.files import write_text
from peftlab.suites.orders import Order, RunKey

if TYPE_CHECKING:
    from peftlab.training.prepare import Found

ENCODER = "encoder"


@dataclass(frozen=True)
class Adapted:
    """The adapted encoder's folder; `megabytes` (10^6 bytes) of it are shipped beside what is trained on it."""

    folder: Path
    megabytes: float


def adapted_encoder(
    rung: Rung,
    found: Found,
    ceilings: LadderCeilings,
    work: Path,
    *,
    do: Do,
    account: Account,
    seconds: float,
    threads: int | None,
    asked_to_stop: Callable[[], bool],
) -> Adapted | str:
    """Pretrain the encoder of `found` on its training texts, or return why there is no adapted one.

    Only training rows are read, without their labels. It may take `seconds` of wall time; what a kill leaves is
    continued. An encoder whose weights were changed must be shipped, so its size counts against `shipped_mb`.
    """
    if found.files is None or rung.pretraining is None:
        raise AssertionError("called for a rung that pretrains an encoder")
    if rung.name in account.given_up:
        return account.given_up[rung.name]
    recipe = _written(rung, found, work)
    if (over := _over(ceilings, recipe, rung)) is not None:
        return over
    digest = hashlib.sha256(recipe.read_bytes() + json.dumps(rung.pretraining).encode()).hexdigest()
    key = RunKey(digest, found.splits.fingerprint, code_hash("lora", found.recipe.task.name))
    name = f"{rung.name}-pretraining"
    order = Order(name, str(recipe), rung.pretraining, key, str(Path.cwd()), program="peftlab.pretrain")
    end = account.spent() + seconds

    def stop() -> bool:
        account.tick()
        return asked_to_stop() or account.left() <= 0 or account.spent() >= end

    ended = do(order, work, threads, stop)
    folder = work / name / ENCODER
    if not (folder / "config.json").is_file():
        if ended.stopped and not asked_to_stop():
            account.given_up[rung.name] = "its pretraining did not end within half of the rung's share of the minutes"
            account.write()
            return account.given_up[rung.name]
        last = ended.last_words.strip().rpartition("\n")[2]
        return f"its pretraining failed: {last or f'exit code {ended.code}'}"
    megabytes = folder_bytes(folder) / 1e6
    if ceilings.shipped_mb is not None and megabytes >= ceilings.shipped_mb:
        return f"the adapted encoder takes {megabytes:.1f} MB, and shipped_mb is {ceilings.shipped_mb:g}"
    return Adapted(folder, megabytes)


def _written(rung: Rung, found: Found, work: Path) -> Path:
    """Write the training texts, one a line, and the pretraining recipe that reads them; return the recipe's path."""
    train, files = found.splits.train, found.files
    if files is None:
        raise AssertionError("checked by the caller")
    texts = [*train.texts, *(train.pairs or ())]
    # Whole blocks of a hundred lines are held out; a few of them are enough to see whether it learns.
    held_out = min(0.3, max(0.02, 500 / max(1, len(texts))))
    corpus, path = work / f"{rung.name}-texts.txt", work / f"{rung.name}-pretraining.toml"
    work.mkdir(parents=True, exist_ok=True)
    write_text(corpus, "".join(" ".join(text.split()) + "\n" for text in texts))
    name = str(files.folder) if files.kind == "local" else files.used
    encoder = {"name": name} | ({"revision": files.revision} if files.revision is not None else {})
    sections = {
        "encoder": encoder,
        "corpus": {"files": [corpus.name], "length": 64, "held_out": held_out},
        "masking": {"whole_words": "off"},
        "train": {"seed": found.recipe.train.seed},
        "run": {"trackers": []},
    }
    write_text(path, tomlkit.dumps(sections))
    return path


def _over(ceilings: LadderCeilings, recipe: Path, rung: Rung) -> str | None:
    """Return why the pretraining cannot be done at all: its recipe, or the ceiling on trained parameters."""
    from peftlab.pretraining.prepare import outline
    from peftlab.recipe.load import read_pretraining
    from peftlab.recipe.resolve import resolved_pretraining

    try:
        trained = outline(resolved_pretraining(read_pretraining(recipe, rung.pretraining or ())))["trained_parameters"]
    except UserError as error:
        return f"its pretraining: {str(error).splitlines()[0]}"
    most = ceilings.trainable_parameters
    if most is not None and trained > most:
        return f"its pretraining trains {trained:,} parameters, and trainable_parameters is {most:,}"
    return None
