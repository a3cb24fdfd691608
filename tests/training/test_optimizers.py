"""Parameter groups: every trained parameter in exactly one, with its own learning rate and decay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from peftlab.encoders.load import HeadShape, load_classifier
from peftlab.encoders.trainable import trained_parameters
from peftlab.errors import UserError
from peftlab.methods import full, lora
from peftlab.recipe.records import Encoder, Optimizer
from peftlab.training.checkpoints import Checkpoint, Progress, load_checkpoint, save_checkpoint
from peftlab.training.optimizers import make_optimizer, parameter_groups

CPU = torch.device("cpu")


def rates_and_decays(
    folder: Path, settings: Optimizer, method: str = "lora"
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return (learning rate, weight decay) of each trained parameter by name, and how many entries the groups have."""
    loaded = load_classifier(Encoder(name="x", pooling="native"), folder, HeadShape(3, 0.1))
    attached = (
        lora.attach(loaded.model, lora.Config(), loaded.anatomy)
        if method == "lora"
        else full.attach(loaded.model, full.Config(), loaded.anatomy)
    )
    groups = parameter_groups(attached, loaded.anatomy, settings, learning_rate=1e-3)
    names = {id(parameter): name for name, parameter in trained_parameters(attached).items()}
    entries = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    return {name: (group["peak_lr"], group["weight_decay"]) for name, group in entries}, len(entries)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_trained_parameter_is_in_one_group_and_vectors_do_not_decay(
    method: str, tiny_encoder: Callable[..., Path]
) -> None:
    """Biases and norms are vectors; matrices decay."""
    found, entries = rates_and_decays(tiny_encoder(), Optimizer(weight_decay=0.05), method)

    assert entries == len(found)
    assert {decay for name, (_, decay) in found.items() if name.endswith("bias") or "LayerNorm" in name} == {0.0}
    assert {decay for name, (_, decay) in found.items() if "lora_" in name or name.endswith("dense.weight")} == {0.05}


def test_the_head_may_have_its_own_learning_rate(tiny_encoder: Callable[..., Path]) -> None:
    """Only the newly initialised modules take it."""
    found, _ = rates_and_decays(tiny_encoder(), Optimizer(head_learning_rate=5e-2))

    assert {rate for name, (rate, _) in found.items() if "classifier" in name} == {5e-2}
    assert {rate for name, (rate, _) in found.items() if "lora_" in name} == {1e-3}


def test_lora_plus_speeds_up_the_b_matrices_and_nothing_else(tiny_encoder: Callable[..., Path]) -> None:
    """The LoRA+ optimizer of peft takes the head along; this one does not."""
    found, _ = rates_and_decays(tiny_encoder(), Optimizer(lora_plus=16.0))

    assert {round(rate, 9) for name, (rate, _) in found.items() if ".lora_B." in name} == {1.6e-2}
    assert {rate for name, (rate, _) in found.items() if ".lora_B." not in name} == {1e-3}


def fitted(
    name: str, device: torch.device, steps: int
) -> tuple[torch.nn.Parameter, torch.optim.Optimizer, list[float]]:
    """Return a weight, its optimizer and the losses after `steps` steps towards zero."""
    weight = torch.nn.Parameter(torch.ones(400, 400, device=device))
    groups = [{"params": [weight], "lr": 0.1, "peak_lr": 0.1, "weight_decay": 0.0}]
    optimizer = make_optimizer(groups, Optimizer.model_validate({"name": name}), device)
    losses = []
    for _ in range(steps):
        loss = (weight**2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return weight, optimizer, losses


@pytest.mark.parametrize("name", ["adamw_8bit", "lion_8bit"])
def test_eight_bit_optimizers_keep_their_state_in_bytes(name: str) -> None:
    """For tensors large enough to be worth it; the loss falls."""
    pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    weight, optimizer, losses = fitted(name, CPU, 3)

    assert losses[2] < losses[0]
    assert optimizer.state[weight]["state1"].dtype == torch.uint8


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["paged_adamw_8bit", "paged_lion_8bit"])
def test_paged_optimizers_step_on_a_gpu(name: str) -> None:
    """State of 100,000 values or more is paged."""
    pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    weight, optimizer, losses = fitted(name, torch.device("cuda"), 3)

    assert losses[2] < losses[0]
    assert optimizer.state[weight]["state1"].dtype == torch.uint8
    assert optimizer.state[weight]["state1"].is_paged  # type: ignore[attr-defined] # bitsandbytes sets it


@pytest.mark.parametrize("name", ["adamw_8bit", "lion_8bit"])
def test_a_state_in_bytes_survives_a_checkpoint_to_the_same_bits(name: str, tmp_path: Path) -> None:
    """Saved after two steps and loaded into a fresh optimizer, the third step ends in the same weights and state."""
    pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    weight, optimizer, _ = fitted(name, CPU, 2)
    progress = Progress(step=2, micro_rows=8)
    save_checkpoint(tmp_path, Checkpoint(progress, {"weight": weight}, optimizer.state_dict(), (), {}, {}))
    saved = load_checkpoint(tmp_path / "step-2", {})
    again, other, _ = fitted(name, CPU, 0)
    again.data.copy_(saved.weights["weight"])
    other.load_state_dict(dict(saved.optimizer))
    for parameter, stepping in ((weight, optimizer), (again, other)):
        (parameter**3).mean().backward()
        stepping.step()

    assert torch.equal(weight, again)
    before, after = optimizer.state[weight], other.state[again]
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]) if isinstance(value, torch.Tensor) else value == after[key], key
        assert not isinstance(value, torch.Tensor) or value.dtype == after[key].dtype


@pytest.mark.parametrize("name", ["adamw_8bit", "lion_8bit"])
def test_paged_state_without_a_gpu_is_refused(name: str) -> None:
    """There is nothing to page to."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1, "peak_lr": 0.1, "weight_decay": 0.0}]
    pytest.importorskip("bitsandbytes", reason="absent: bitsandbytes")
    with pytest.raises(UserError, match=f"'paged_{name}' pages .* without a GPU use '{name}'"):
        make_optimizer(groups, Optimizer.model_validate({"name": f"paged_{name}"}), CPU)
