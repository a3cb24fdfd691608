"""AdaLoRA: ranks that are really allocated, a penalty counted once, a state that survives, and a file that shrinks."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from peftlab import check, predict, train
from peftlab.data.tokens import labelled_batches, tokenise
from peftlab.encoders.anatomy import Anatomy
from peftlab.encoders.load import HeadShape, load_classifier, load_tokenizer
from peftlab.encoders.saved import load_trained, save_trained, saved_parameters
from peftlab.encoders.trainable import count_parameters, trained_parameters
from peftlab.errors import UserError
from peftlab.methods import adalora
from peftlab.recipe.records import Encoder, Evaluation, Optimizer, Train
from peftlab.runs.result import Result, read_result
from peftlab.training.checkpoints import Checkpoint, Progress, load_checkpoint, load_weights, save_checkpoint
from peftlab.training.loop import Fitting, fit
from peftlab.training.optimizers import make_optimizer, parameter_groups
from peftlab.training.placement import Placement
from peftlab.training.plan import make_plan
from peftlab.training.supervise import Supervision
from peftlab.training.supervise import train as supervise

ROWS, LABELS, HIDDEN, INNER, LAYERS = 36, 3, 32, 64, 2
MODULES = 6 * LAYERS
HEAD = (HIDDEN + 1) * LABELS
# d_in + d_out + 1 of four attention and two feed-forward matrices in each layer: parameters of one rank in all modules.
ONE_RANK = LAYERS * (4 * (HIDDEN + HIDDEN + 1) + 2 * (HIDDEN + INNER + 1))
HALF = adalora.Config(r=4, initial_r=8, alpha=64.0, dropout=0.0, delta_t=2, tinit=0.2, tfinal=0.3)
"""A budget of half the initial rank; ranks fall in steps 6 to 14 of 20. The large alpha makes the update count."""
STEPS, FIRST_FALL, SETTLED = 20, 6, 14


@dataclass(frozen=True)
class Run:
    """A model with AdaLoRA, and what the loop needs to train it for 20 steps without dropout."""

    fitting: Fitting
    anatomy: Anatomy
    folder: Path
    dtype: str
    config: adalora.Config

    @property
    def model(self) -> Any:
        return self.fitting.model

    def logits(self) -> torch.Tensor:
        """Return the logits of a fixed batch, in evaluation mode."""
        return logits(self.model)

    def reloaded(self, folder: Path) -> Any:
        """Return a fresh encoder, drawn from another seed, with the trained part in `folder`."""
        bare = loaded_encoder(self.folder, seed=99, dtype=self.dtype)
        attach = partial(adalora.attach, config=self.config, anatomy=bare.anatomy)
        return load_trained(bare.model, folder, attach)


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[2, 9, 12, 30, 3], [2, 40, 3, 0, 0], [2, 17, 21, 3, 0], [2, 8, 7, 6, 3]])
    model.eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=(ids != 0).long()).logits.clone()


def loaded_encoder(folder: Path, *, seed: int = 0, dtype: str = "fp32") -> Any:
    torch.manual_seed(seed)
    encoder = Encoder.model_validate({"name": str(folder), "pooling": "mean", "dtype": dtype})
    loaded = load_classifier(encoder, folder, HeadShape(LABELS, dropout=0.0))
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


@pytest.fixture
def make_run(tiny_encoder: Callable[..., Path]) -> Callable[..., Run]:
    """Return `make(config=HALF, batch_size=8, accumulation=1, ...)`: always from the same weights."""
    folder = tiny_encoder()
    words = ["parcel", "refund", "battery", "courier", "invoice", "screen", "late", "card"]
    texts = [" ".join(words[(row + step) % 8] for step in range(1 + row % 5)) for row in range(ROWS)]
    tokens = tokenise(load_tokenizer(folder), texts, None, 32)

    def make(
        config: adalora.Config = HALF,
        batch_size: int = 8,
        accumulation: int = 1,
        dtype: str = "fp32",
        learning_rate: float = 3e-2,
        **changes: Any,
    ) -> Run:
        loaded = loaded_encoder(folder, dtype=dtype)
        model = adalora.attach(loaded.model, config, loaded.anatomy)
        groups = parameter_groups(model, loaded.anatomy, Optimizer(), learning_rate)
        section = Train(epochs=4, batch_size=batch_size, accumulation=accumulation)
        plan = make_plan(section, Evaluation(every=1), ROWS)
        base = Fitting(
            model=model,
            lengths=tokens.lengths,
            batch=labelled_batches(tokens, torch.from_numpy(np.arange(ROWS) % LABELS)),
            row_weights=np.ones(ROWS, np.float32),
            row_losses=partial(torch.nn.functional.cross_entropy, reduction="none"),
            optimizer=make_optimizer(groups, Optimizer(), torch.device("cpu")),
            plan=plan,
            schedule="linear",
            clip=1.0,
            seed=0,
            placement=Placement(0, 1, torch.device("cpu"), 1, "fp32"),
            describe_rows=str,
            stop_asked=lambda: False,
            hooks=adalora.hooks(model, config, plan.total_steps),
        )
        assert plan.total_steps == STEPS
        return Run(replace(base, **changes), loaded.anatomy, folder, dtype, config)

    return make


def finish(run: Run) -> dict[str, int]:
    """Remove the masked ranks, as the end of a run does."""
    assert run.fitting.hooks.finish is not None
    return run.fitting.hooks.finish()


def ranks_of(model: Any) -> dict[str, int]:
    """Return how many values of E are not zero in each module."""
    return {
        name: int((parameter != 0).sum())
        for name, parameter in model.named_parameters()
        if name.endswith("lora_E.default")
    }


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trained_parameters(model).items()}


def test_the_count_at_peak_is_the_closed_form(make_run: Callable[..., Run]) -> None:
    """Rank 1.5 times r at first; peft's constant of each module is no parameter, on a bf16 encoder either."""
    for dtype in ("fp32", "bf16"):
        run = make_run(adalora.Config(r=2, delta_t=2), dtype=dtype)
        bare = sum(parameter.numel() for parameter in loaded_encoder(run.folder).model.parameters())
        counts = count_parameters(run.model, run.anatomy)

        assert (counts.trainable, counts.total) == (3 * ONE_RANK + HEAD, 3 * ONE_RANK + bare)


def test_a_budget_of_half_is_met_and_what_is_shipped_shrinks_to_it(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Half the ranks survive, in unequal parts; without the others the logits, the base and a reload are the same."""
    run = make_run()
    frozen = {name: value.clone() for name, value in run.model.named_parameters() if not value.requires_grad}
    peak_bytes = save_trained(run.model, tmp_path / "peak", encoder_name="tiny")
    peak = saved_parameters(tmp_path / "peak")
    for _ in fit(run.fitting):
        pass
    masked = run.logits()
    ranks = finish(run)
    removed = run.logits()
    without = copy.deepcopy(run.model)
    for name, value in without.named_parameters():
        value.data *= ".lora_E." not in name

    assert sum(ranks.values()) == 4 * MODULES
    per_layer = [sum(rank for name, rank in ranks.items() if f".layer.{layer}." in name) for layer in range(LAYERS)]
    assert len(set(per_layer)) == LAYERS, "no two layers have the same rank"
    assert len(set(ranks.values())) > 2
    assert float((logits(without) - removed).abs().max()) > 0.1, "the update matters, or nothing here was tested"
    assert float((masked - removed).abs().max()) < 1e-5
    assert all(torch.equal(value, frozen[name]) for name, value in run.model.named_parameters() if name in frozen)

    size = save_trained(run.model, tmp_path / "trained", encoder_name="tiny")
    surviving = sum(parameter.numel() for parameter in trained_parameters(run.model).values())
    assert peak == 8 * ONE_RANK + HEAD
    assert saved_parameters(tmp_path / "trained") == surviving
    assert (surviving - HEAD) / (peak - HEAD) == pytest.approx(0.5, abs=0.1)
    file = "adapter_model.safetensors"
    bytes_saved = [(tmp_path / name / file).stat().st_size for name in ("peak", "trained")]
    assert bytes_saved[0] - bytes_saved[1] == pytest.approx(4 * (peak - surviving), abs=300)
    assert size < peak_bytes
    assert torch.equal(logits(run.reloaded(tmp_path / "trained")), removed)


def test_a_pruned_adapter_loads_with_plain_peft(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """It reads the rank pattern, though it warns that it did not; switching off and merging work as ever."""
    from peft import PeftModel

    run = make_run()
    base = run.logits()
    for _ in fit(run.fitting):
        pass
    finish(run)
    save_trained(run.model, tmp_path / "trained", encoder_name="tiny")
    with pytest.warns(RuntimeWarning, match="rank_pattern keys did not match"):
        fresh = PeftModel.from_pretrained(loaded_encoder(run.folder, seed=99).model, tmp_path / "trained")

    assert torch.equal(logits(fresh), run.logits())
    with run.model.disable_adapter():
        assert torch.allclose(run.logits(), base, atol=1e-6), "the frozen encoder under the head of the start"
    assert torch.allclose(logits(fresh.merge_and_unload()), run.logits(), atol=1e-5)


def test_two_pruned_adapters_switch_on_one_encoder_without_leaking(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    """Each has ranks of its own, and gives its own logits whatever was active before."""
    expected = {}
    for name, r in (("default", 1), ("second", 4)):
        run = make_run(HALF.model_copy(update={"r": r}))
        for _ in fit(run.fitting):
            pass
        finish(run)
        save_trained(run.model, tmp_path / name, encoder_name="tiny")
        expected[name] = run.logits()
    model = run.reloaded(tmp_path / "default")
    with pytest.warns(RuntimeWarning, match="rank_pattern keys did not match"):
        model.load_adapter(str(tmp_path / "second"), "second")

    assert not torch.allclose(expected["default"], expected["second"], atol=1e-3)
    for name in ("second", "default", "second"):
        model.set_adapter(name)
        assert torch.equal(logits(model), expected[name]), name


def test_modules_of_rank_0_are_saved_reloaded_and_merged(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """With one rank a module to share out, some module gets none (peft issues 1539 and 1540)."""
    run = make_run(HALF.model_copy(update={"r": 1, "initial_r": 6}))
    for _ in fit(run.fitting):
        pass
    masked = run.logits()
    ranks = finish(run)
    save_trained(run.model, tmp_path / "trained", encoder_name="tiny")
    fresh = run.reloaded(tmp_path / "trained")

    assert sum(ranks.values()) == MODULES
    assert min(ranks.values()) == 0
    assert torch.allclose(run.logits(), masked, atol=1e-5)
    assert torch.equal(logits(fresh), run.logits())
    assert torch.allclose(logits(fresh.merge_and_unload()), run.logits(), atol=1e-5)


def test_pruned_weights_on_a_bf16_encoder_are_not_rounded(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """On loading, peft makes the cut matrices anew in the encoder's type; what was trained in fp32 stays so."""
    run = make_run(dtype="bf16")
    for _ in fit(run.fitting):
        pass
    before = weights(run.model)
    ranks = finish(run)
    save_trained(run.model, tmp_path / "trained", encoder_name="tiny")
    fresh = run.reloaded(tmp_path / "trained")

    kept = weights(run.model)
    name = next(name for name in kept if name.endswith("query.lora_E.default"))
    assert torch.equal(kept[name], before[name][before[name] != 0].reshape(-1, 1))
    assert {parameter.dtype for parameter in trained_parameters(run.model).values()} == {torch.float32}
    reloaded = dict(fresh.named_parameters())
    assert all(torch.equal(reloaded[name], value) for name, value in kept.items())
    assert torch.equal(logits(fresh), run.logits())
    assert sum(ranks.values()) == 4 * MODULES


def test_ranks_fall_between_the_phases_and_never_in_them(make_run: Callable[..., Run]) -> None:
    """Full rank until the first allocation, the budget from the last one on, never above it at a validation after."""
    run = make_run()
    seen = [sum(ranks_of(run.model).values()) for _ in fit(run.fitting)]

    assert run.fitting.hooks.settled_from == SETTLED
    assert seen[: FIRST_FALL - 1] == [8 * MODULES] * (FIRST_FALL - 1)
    assert seen[FIRST_FALL - 1] < 8 * MODULES
    assert seen[SETTLED - 1 :] == [4 * MODULES] * (STEPS - SETTLED + 1)


def test_a_step_that_overflowed_leaves_the_averages_alone(make_run: Callable[..., Run]) -> None:
    """In fp16 gradients may be infinite; the importance of every rank would be, ever after."""
    run = make_run()
    after_step = run.fitting.hooks.after_step
    assert after_step is not None
    steps = fit(run.fitting)
    for _ in range(3):
        next(steps)
    allocator = run.model.base_model.rankallocator
    kept = {name: value.clone() for name, value in allocator.exp_avg_unc.items()}
    for parameter in trained_parameters(run.model).values():
        parameter.grad = torch.full_like(parameter, float("inf"))
    after_step(4, False)

    assert all(torch.equal(value, kept[name]) for name, value in allocator.exp_avg_unc.items())
    after_step(SETTLED, False)
    assert sum(ranks_of(run.model).values()) == 4 * MODULES, "the last allocation is due whatever the gradients are"


def penalty_by_hand(model: Any) -> float:
    """Return the mean of the norms of A A^T - I and B^T B - I in float64."""
    norms = []
    for name, parameter in model.named_parameters():
        value = parameter.detach().double().numpy()
        if ".lora_A." in name:
            norms.append(np.linalg.norm(value @ value.T - np.eye(len(value))))
        elif ".lora_B." in name:
            norms.append(np.linalg.norm(value.T @ value - np.eye(value.shape[1])))
    return float(np.mean(norms))


@pytest.mark.parametrize("loss", ["cross_entropy", "other"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(8, 1), (4, 2)])
def test_the_penalty_is_added_once_to_whatever_the_loss_is(
    loss: str, batch_size: int, accumulation: int, make_run: Callable[..., Run]
) -> None:
    """The first step's loss is that of a run without penalty, plus the weight times the mean norm, once."""
    other = {"row_losses": lambda given, _: given.square().sum(1)} if loss == "other" else {}
    plain = make_run(HALF.model_copy(update={"orthogonal_weight": 0.0}), batch_size, accumulation, **other)
    run = make_run(HALF.model_copy(update={"orthogonal_weight": 0.3}), batch_size, accumulation, **other)
    expected = 0.3 * penalty_by_hand(run.model)
    first, bare = next(fit(run.fitting)), next(fit(plain.fitting))

    assert plain.fitting.hooks.penalty is None
    assert expected > 0.1
    assert first.loss - bare.loss == pytest.approx(expected, abs=1e-5)


def test_peft_adds_its_own_penalty_to_no_loss_of_ours(make_run: Callable[..., Run]) -> None:
    """It does so to a loss that the model returns; the loop passes no labels, so the model returns none."""
    run = make_run()
    ids = torch.tensor([[2, 9, 3]])

    assert getattr(run.model(input_ids=ids, attention_mask=torch.ones_like(ids)), "loss", None) is None


def test_accumulating_two_batches_of_four_allocates_as_one_batch_of_eight(make_run: Callable[..., Run]) -> None:
    """The same ranks survive and the same weights come out; the allocator counts optimizer steps."""
    accumulated, whole = make_run(HALF, 4, 2), make_run(HALF, 8, 1)
    for step, other in zip(fit(accumulated.fitting), fit(whole.fitting), strict=True):
        assert step.loss == pytest.approx(other.loss, abs=1e-5)

    assert ranks_of(accumulated.model) == ranks_of(whole.model)
    ours, theirs = weights(accumulated.model), weights(whole.model)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5


def test_a_checkpoint_of_any_step_continues_to_the_same_bits(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """In warm-up, between two allocations, right after one, and with the final ranks."""
    whole = make_run()
    saved: dict[int, Path] = {}
    for step in fit(whole.fitting):
        assert whole.fitting.hooks.state is not None
        folder = tmp_path / str(step.number)
        save_checkpoint(
            folder,
            Checkpoint(
                progress=Progress(step=step.number, micro_rows=8),
                weights=trained_parameters(whole.model),
                optimizer=whole.fitting.optimizer.state_dict(),
                random=(),
                extra={"method": whole.fitting.hooks.state()},
                identity={},
            ),
        )
        saved[step.number] = folder / f"step-{step.number}"
    ranks, end = finish(whole), weights(whole.model)
    for number in (1, FIRST_FALL - 1, FIRST_FALL, 9, 10, SETTLED - 1, SETTLED, STEPS - 1):
        again = make_run()
        checkpoint = load_checkpoint(saved[number], {})
        load_weights(saved[number], again.model)
        again.fitting.optimizer.load_state_dict(dict(checkpoint.optimizer))
        assert again.fitting.hooks.restore is not None
        again.fitting.hooks.restore(checkpoint.extra["method"])
        for _ in fit(again.fitting, done=number):
            pass

        assert finish(again) == ranks, f"continued after step {number}"
        assert all(torch.equal(value, end[name]) for name, value in weights(again.model).items()), number


def test_only_models_of_the_final_size_can_be_the_best_or_use_up_patience(
    make_run: Callable[..., Run], tmp_path: Path
) -> None:
    """A metric that is highest at first and falls ever after: the best is the first model at its budget."""
    run = make_run()
    falling: Iterator[float] = iter(1.0 - step / 100 for step in range(STEPS))
    shown = io.StringIO()
    watch = Supervision(
        folder=tmp_path,
        console=Console(file=shown),
        validate=lambda: {"accuracy": next(falling)},
        metric="accuracy",
        lower_is_better=False,
        patience=2,
        checkpoint_every=None,
        identity={},
        track=lambda *_: None,
        signal_number=lambda: 0,
        continue_line="peftlab train --resume RUN",
        resume=False,
    )
    progress = supervise(run.fitting, watch)

    assert (progress.step, progress.best_step, progress.stale) == (SETTLED + 2, SETTLED, 2)
    assert sum(finish(run).values()) == 4 * MODULES
    assert f"step {SETTLED - 1} of {STEPS}: validation accuracy 0.8800  (not yet at its final size)" in shown.getvalue()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"delta_t": 11}, "too few for adalora: .* 10 are left to take ranks away in; expected at least 11"),
        ({"tinit": 0.4, "tfinal": 0.6 - 1e-9, "delta_t": 1}, "0 are left to take ranks away in; expected at least 2"),
    ],
)
def test_too_few_steps_for_the_phases_are_refused(
    settings: dict[str, Any], sentence: str, make_run: Callable[..., Run]
) -> None:
    with pytest.raises(UserError, match=sentence):
        make_run(HALF.model_copy(update=settings))


@pytest.mark.parametrize(
    ("settings", "key", "reason"),
    [
        (["method.initial_r=8"], "method.initial_r=8", "expected a whole number above r = 8, from which ranks"),
        (["method.r=12", "method.initial_r=9"], "method.initial_r=9", "above r = 12, from which ranks are taken"),
        (["method.tinit=0.3", "method.tfinal=0.7"], "method.tfinal=0.7", "tinit = 0.3 and tfinal = 0.7 leave no steps"),
        (["method.tinit=0.6"], "method", "tinit = 0.6 and tfinal = 0.5 leave no steps"),
        (["method.beta1=1.0"], "method.beta1=1.0", "expected a number above 0 and below 1, found 1.0"),
        (["method.orthogonal_weight=-1"], "method.orthogonal_weight=-1", "expected a number of at least 0"),
        (["method.delta_t=0"], "method.delta_t=0", "expected a whole number above 0, found 0"),
        (["method.rslora=true"], "method.rslora", "rslora"),
    ],
)
def test_a_bad_setting_is_refused_with_its_key_and_the_reason(
    settings: list[str],
    key: str,
    reason: str,
    tiny_recipe: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check.main([str(tiny_recipe("adalora")), *settings]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert key in line
    assert reason in line


def test_a_run_too_short_is_refused_by_check_and_before_the_first_step(
    tiny_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence with the recipe's path and the keys to change; exit code 2."""
    recipe, run = tiny_recipe("adalora"), tmp_path / "run"
    assert check.main([str(recipe), "train.max_steps=6"]) == 2
    checked = capsys.readouterr().err.strip().splitlines()[-1]
    assert train.main([str(recipe), "train.max_steps=6", f"run.dir={run}"]) == 2
    trained = capsys.readouterr().err

    assert checked.startswith(f"{recipe}: method: 6 optimizer steps are too few for adalora")
    assert "lower method.delta_t" in checked
    assert checked in trained
    assert not (run / "metrics.jsonl").exists()


@pytest.fixture(scope="module")
def finished(
    tiny_encoder: Callable[..., Path], tiny_tickets: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of a whole run of 24 steps at half the budget, validated after every second one."""
    folder = tmp_path_factory.mktemp("adalora")
    tickets = tiny_tickets()
    files = "\n".join(f'{split} = "{tickets / split}.jsonl"' for split in ("train", "validation", "test"))
    recipe = folder / "adalora_tiny.toml"
    recipe.write_text(
        f'[encoder]\nname = "{tiny_encoder()}"\npooling = "mean"\nmax_length = 32\n\n'
        f'[task]\nname = "classification"\n\n[data]\n{files}\n\n'
        '[method]\nname = "adalora"\nr = 4\ninitial_r = 8\nalpha = 64.0\ndelta_t = 2\n\n'
        '[train]\nepochs = 3\nbatch_size = 8\nprecision = "fp32"\nthreads = 1\nlearning_rate = 0.02\n\n'
        "[evaluation]\nevery = 2\npatience = 4\n\n[run]\ntrackers = []\n",
        encoding="utf-8",
    )
    assert train.main([str(recipe), f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def result_of(run: Path) -> Result:
    result = read_result(run)
    assert result.parameters is not None
    assert result.ranks is not None
    return result


def test_a_result_counts_parameters_at_peak_surviving_and_shipped(finished: Path) -> None:
    result = result_of(finished)
    parameters, ranks = result.parameters, result.ranks
    assert parameters is not None
    assert ranks is not None

    assert sum(ranks.values()) == 4 * MODULES
    assert "encoder.encoder.layer.0.attention.self.query" in ranks
    assert parameters.trainable == 8 * ONE_RANK + HEAD
    inner = {"intermediate", "output"}
    sizes = {name: HIDDEN + (INNER if name.split(".")[4] in inner else HIDDEN) + 1 for name in ranks}
    assert parameters.surviving == sum(sizes[name] * rank for name, rank in ranks.items()) + HEAD
    assert parameters.shipped == parameters.surviving
    assert result.round_trip is not None
    assert result.round_trip.max_logit_difference <= 1e-5
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert f"| left in the end | {parameters.surviving:,} (" in card
    assert "(ranks.png)" in card
    assert (finished / "ranks.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_checkpoint_of_a_run_has_the_final_ranks(finished: Path) -> None:
    """24 steps, of which 12 fine-tune the final ranks; patience of 4 validations did not end it before."""
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    validations = [line for line in lines if "validation" in line]
    best = read_result(finished).best

    assert [line["best"] for line in validations if line["step"] < 12] == [False] * 5
    assert best is not None
    assert best.step >= 12
    assert best.step == max(line["step"] for line in validations if line["best"])


def test_the_evaluation_loss_is_plain_cross_entropy(
    finished: Path, tiny_tickets: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """On validation and test: no penalty in it, and the masked model of validation scores as the shipped one."""
    result = read_result(finished)
    capsys.readouterr()
    files = {split: tiny_tickets() / f"{split}.jsonl" for split in ("validation", "test")}
    measured = {"validation": result.metrics.validation["nll"], "test": result.metrics.test["nll"].value}
    for split, path in files.items():
        assert predict.main([str(finished), str(path), "--json"]) == 0
        answers = [json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines()]
        gold = [json.loads(line)["label"] for line in path.read_text(encoding="utf-8").splitlines()]
        plain = -np.mean([np.log(row[label]) for row, label in zip(answers, gold, strict=True)])

        assert measured[split] == pytest.approx(plain, abs=1e-5)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert result.best is not None
    masked = next(line for line in lines if line["step"] == result.best.step and "validation" in line)
    assert masked["validation"]["nll"] == pytest.approx(measured["validation"], abs=1e-5)
