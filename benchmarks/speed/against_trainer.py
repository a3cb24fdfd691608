"""LoRA training of a recipe by peftlab and by stock transformers.Trainer + peft: wall time of the steps, and accuracy.

python benchmarks/speed/against_trainer.py recipes/lora_minilm_banking77.toml [--rounds 5] [--steps 20] [--epochs 0]
Same model, data, rows a step, learning rates, dropout; `--rounds` trainings of `--steps` steps for each arm, in turn,
so that each takes rounds x steps steps. Grouping by length has the longest texts first: `--steps` of a whole epoch is
fair to it. `--arms` and `--name` measure some of the arms and record them by themselves. Set-up (imports, tokens,
building model and Trainer) is left out and given by itself. With `--epochs` N > 0 peftlab and Trainer with its best
flags also train N epochs and are scored on the test rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import record
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from peftlab.data.tokens import Tokens, labelled_batches
from peftlab.evaluation.forward import logits_of
from peftlab.programs import quiet_libraries
from peftlab.recipe.load import read_recipe
from peftlab.recipe.resolve import resolved
from peftlab.training.loop import Fitting, fit
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.placement import Placement, multiplies_bf16_fast
from peftlab.training.plan import make_plan
from peftlab.training.prepare import Found, build_model, find_inputs, tokenise_splits

CPU = torch.device("cpu")
LIMITS = {"trainer padded to 128": 0.12, "trainer dynamic padding": 0.35, "trainer best flags": 0.5}
"""What peftlab's time may be of each arm's."""


class Clock(TrainerCallback):
    """Note when the first step of a training begins and when the last one ends."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Keep the first of these moments."""
        self.begin = self.begin or time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Keep the last of these moments."""
        self.end = time.perf_counter()


def by_peftlab(found: Found, tokens: Tokens, *, steps: int | None, epochs: float) -> tuple[Any, float, float]:
    """Return the trained model, the seconds of its steps, and those of the set-up."""
    started = time.perf_counter()
    recipe, splits = found.recipe, found.splits
    model = build_model(found, device=CPU, seed=0)
    torch.manual_seed(1)
    train = recipe.train.model_copy(update={"epochs": epochs, "max_steps": steps})
    precision = "bf16" if multiplies_bf16_fast(CPU) else "fp32"
    groups = parameter_groups(model.module, model.anatomy, recipe.optimizer, _rate(found))
    fitting = Fitting(
        model=model.module,
        lengths=tokens.lengths,
        batch=labelled_batches(tokens, torch.from_numpy(splits.train.labels)),
        row_weights=np.ones(len(tokens), np.float32),
        row_losses=lambda logits, targets: found.task.row_losses(logits, targets, None, recipe.task.config),
        optimizer=make_optimizer(groups, recipe.optimizer, CPU),
        plan=make_plan(train, recipe.evaluation, len(tokens)),
        schedule=recipe.train.schedule,
        clip=recipe.optimizer.clip,
        seed=0,
        placement=Placement(0, 1, CPU, torch.get_num_threads(), precision),
        describe_rows=str,
        stop_asked=lambda: False,
    )
    begin = time.perf_counter()
    for _ in fit(fitting):
        pass
    return model.module, time.perf_counter() - begin, begin - started


def by_trainer(
    found: Found, tokens: Tokens, *, steps: int | None, epochs: float, pad: int | None, best: bool
) -> tuple[Any, float, float]:
    """Return the trained model, the seconds of its steps, and those of the set-up."""
    started = time.perf_counter()
    recipe = found.recipe
    model = build_model(found, device=CPU, seed=0).module
    plan = make_plan(
        recipe.train.model_copy(update={"epochs": epochs, "max_steps": steps}), recipe.evaluation, len(tokens)
    )
    rows = [
        {"input_ids": tokens.ids[start:end].tolist(), "labels": int(label)}
        for start, end, label in zip(tokens.starts[:-1], tokens.starts[1:], found.splits.train.labels, strict=True)
    ]
    padding = {"padding": "max_length", "max_length": pad} if pad is not None else {"padding": True}
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=recipe.train.batch_size,
            max_steps=plan.total_steps,
            learning_rate=_rate(found),
            lr_scheduler_type="linear",
            warmup_steps=plan.warmup_steps,
            weight_decay=recipe.optimizer.weight_decay,
            max_grad_norm=recipe.optimizer.clip or 0.0,
            use_cpu=True,
            bf16=best and multiplies_bf16_fast(CPU),
            train_sampling_strategy="group_by_length" if best else "random",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            seed=0,
        )
        trainer = Trainer(
            model=model,
            args=settings,
            data_collator=DataCollatorWithPadding(found.tokenizer, **padding),
            train_dataset=rows,
            compute_loss_func=partial(_loss, getattr(recipe.task.config, "label_smoothing", 0.0)),
            callbacks=[clock],
        )
        trainer.train()
    return model, clock.end - clock.begin, clock.begin - started


def _loss(
    smoothing: float,
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: Any = None,  # noqa: ARG001 Trainer gives it
) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs.logits.float(), labels, label_smoothing=smoothing)


def _rate(found: Found) -> float:
    rate = found.recipe.train.learning_rate
    return float(found.method.LEARNING_RATE.default if rate == "auto" else rate)


def main() -> None:
    """Measure, print a table, write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("recipe", type=Path)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--epochs", type=float, default=0.0)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--arms", nargs="+", choices=list(LIMITS), default=list(LIMITS), help="peftlab is always one")
    asked.add_argument("--name", default="against_trainer", help="of the record")
    options = asked.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    found = find_inputs(resolved(read_recipe(options.recipe, [])), report_path=None, say=print)
    tokens = tokenise_splits(found)
    arms = {
        "peftlab": by_peftlab,
        "trainer padded to 128": partial(by_trainer, pad=128, best=False),
        "trainer dynamic padding": partial(by_trainer, pad=None, best=False),
        "trainer best flags": partial(by_trainer, pad=None, best=True),
    }
    arms = {name: train for name, train in arms.items() if name not in LIMITS or name in options.arms}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(options.rounds):
        for name, train in arms.items():
            _, seconds, setup = train(found, tokens["train"], steps=options.steps, epochs=1000.0)
            spent[name].append((seconds, setup))
            print(f"round {number + 1}: {name} {seconds:.1f} s, set-up {setup:.1f} s", flush=True)
    results = {}
    for name, times in spent.items():
        pairs = zip(spent["peftlab"], times, strict=True)
        results[name] = {
            "seconds": round(statistics.median(seconds for seconds, _ in times), 2),
            "setup_seconds": round(statistics.median(setup for _, setup in times), 2),
            "peftlab_ratio": round(statistics.median(own[0] / other[0] for own, other in pairs), 3),
            "at_most": LIMITS.get(name),
            "steps": options.rounds * options.steps,
        }
        print(name, results[name])
    for name in [name for name in ("peftlab", "trainer best flags") if name in arms and options.epochs]:
        model, seconds, _ = arms[name](found, tokens["train"], steps=None, epochs=options.epochs)
        logits = logits_of(model, tokens["test"], batch_size=128, device=CPU)
        right = (logits.argmax(1) == found.splits.test.labels).mean()
        results[name] |= {"epochs": options.epochs, "epochs_seconds": round(seconds, 1), "accuracy": float(right)}
        print(name, results[name], flush=True)
    bf16 = multiplies_bf16_fast(CPU)
    record(options.name, {"recipe": found.recipe.name, "threads": options.threads, "bf16": bf16}, results)


if __name__ == "__main__":
    main()
