"""What a recipe may say: one frozen record a section, unknown keys forbidden.

Every default stands here or in a plug-in's own `Config`, and nowhere else. The JSON Schema is generated from these
records, so a field's description is what an editor shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from peftlab.errors import UserError

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Record(BaseModel):
    """Base of every section: frozen, strict types, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Layers = tuple[int, ...] | Literal["all"]


class LinearTargets(Record):
    """Which linear modules of the encoder a method changes; a part of the settings of many methods."""

    target_modules: tuple[str, ...] = ("all-linear",)
    """Roles (`query`, `key`, `value`, `attention_output`, `ffn_in`, `ffn_out`, or `attention`, `ffn`, `all-linear`),
    endings of module names, or `regex:...` over whole module names."""
    layers: Layers = "all"
    """Encoder layers that are changed, counted from 0; negative numbers count from the top."""


class Encoder(Record):
    """The frozen encoder: a hub id, a local folder, or `bundled:NAME`."""

    name: Annotated[str, Field(min_length=1)]
    """Hub id (`hfl/rbt3`), a local folder, or `bundled:NAME` (see `peftlab list`)."""
    stand_in: str | None = None
    """Encoder used, and announced, where `name` cannot be reached. Without it such a run stops before any work."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    pooling: Literal["auto", "native", "mean", "cls"] = "auto"
    """`native`: the architecture's own classification head. `mean`, `cls`: pooled last layer and one linear head.
    `auto`: the pooling that the encoder was trained for (sentence-transformers folders say it), else `native`."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type in which frozen weights are stored; trained parameters are always fp32. `auto`: fp32."""
    load_in: Literal["full", "int8", "nf4"] = "full"
    """`int8`, `nf4`: frozen linear layers are stored in 8 or 4 bit by bitsandbytes. Head, pooler and whatever else is
    trained stay in fp32; embeddings, norms and biases have `dtype`, so that `bf16` halves those too."""
    max_length: Annotated[int, Field(ge=4, le=8192)] = 128
    """Tokens kept of each text, special tokens included; `data_report.json` says how many rows are cut."""

    @property
    def stored_as(self) -> str:
        """The type in which frozen weights are stored, `auto` resolved."""
        return "fp32" if self.dtype == "auto" else self.dtype


Severity = Literal["stop", "warn"]


class DataChecks(Record):
    """What each finding in the data does: `stop` ends the run with exit code 2, `warn` reports it and goes on.

    Rows whose finding is `warn` and that cannot be used at all (empty text, missing label) are left out of the split,
    counted and listed in `data_report.json`.
    """

    empty_text: Severity = "stop"
    """Text that is absent, not a string, or white space only."""
    missing_label: Severity = "stop"
    """Rows without a label."""
    unseen_label: Severity = "stop"
    """Labels in validation or test that no training row has."""
    broken_encoding: Severity = "warn"
    """Replacement characters, NUL bytes, or text that was decoded with the wrong encoding."""
    duplicates: Severity = "warn"
    """The same text (NFKC, lower case, no white space) twice within one split."""
    conflicting_labels: Severity = "warn"
    """The same text under two labels within one split."""
    split_overlap: Severity = "warn"
    """The same text in two splits."""
    imbalance: Severity = "warn"
    """A class with fewer than 5 training rows, or the largest class over 100 times the smallest."""
    truncation: Severity = "warn"
    """More than 5 % of the rows are longer than `encoder.max_length`."""
    long_rows: Severity = "warn"
    """Texts of more than 100,000 characters."""


class Data(Record):
    """Labelled rows: local files, a named set, a hub set, or a built-in set."""

    source: str | None = None
    """`builtin:tickets-zh`, `builtin:tickets-en`, or a name looked for in `$PEFTLAB_DATA/NAME/` and then as `hub`."""
    hub: str | None = None
    """Hub id of a data set (`PolyAI/banking77`), used where the named set is not found locally."""
    hub_config: str | None = None
    """Configuration of the hub set, where it has several."""
    train: str | None = None
    """File of training rows: CSV, TSV, JSONL or Parquet, also gzipped. Files win over `source`."""
    validation: str | None = None
    """File of validation rows; without it validation rows are split off the training rows."""
    test: str | None = None
    """File of test rows; without it test rows are split off the training rows."""
    text: str = "text"
    """Column of the text."""
    pair: str | None = None
    """Column of the second text, for pairs."""
    label: str = "label"
    """Column of the label."""
    entities: tuple[str, str] | None = None
    """Columns of two spans of the text, each `[start, end]` in characters, the end excluded. The text is then read with
    both marked, `@ Alice @ works for # Acme #`, so that labels may be relations (Zhou and Chen 2021)."""
    id: str | None = None
    """Column of a row id; without it rows are named by file and line."""
    label_separator: Annotated[str, Field(min_length=1)] = "|"
    """Separates the labels of one row in a multi-label set, where they are one string."""
    split: tuple[Fraction, Fraction, Fraction] = (0.6, 0.2, 0.2)
    """Shares of train, validation and test where no split is given; stratified by label."""
    split_seed: int | None = None
    """Seed of the split; unset: `train.seed`."""
    train_on_validation: bool = False
    """Train on the validation rows too, once a recipe is chosen: nothing is then chosen by validation, and the last
    step is kept. Trials (`evaluation.score_test = false`) keep the validation rows apart all the same."""
    train_rows: Positive | None = None
    """Train on this many rows only, drawn by `train.seed`; for smoke runs and learning curves."""
    checks: DataChecks = DataChecks()
    """What each finding in the data does."""


class Head(Record):
    """The classification head."""

    init: Literal["random", "probe"] = "random"
    """`probe`: start from the logistic regression on frozen pooled embeddings (Kumar et al. 2022, LP-FT)."""
    dropout: Fraction = 0.1
    """Dropout before the last linear layer."""


class Train(Record):
    """The training run."""

    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps, whatever `epochs` says."""
    batch_size: Positive = 32
    """Rows per forward pass, over all processes together."""
    accumulation: Positive = 1
    """Forward passes per optimizer step."""
    max_tokens: Positive | Literal["auto"] = "auto"
    """Most tokens of a forward pass, padding counted, over all processes together: a batch of longer texts is taken in
    several passes. The training stays the same; it takes less memory, so that `batch_size` need not fit the longest.
    `auto`: on a CPU as many as take about the memory of weights, gradients and optimizer state, and 1,024 for each
    thread (in bf16 4,096) in any case; elsewhere as many as the batch has."""
    gradient_checkpointing: bool = False
    """Keep the input of every layer alone, and compute what is in it once more in the backward pass: the same training
    with less memory, at about a forward pass more a step."""
    learning_rate: Annotated[float, Field(gt=0, lt=10)] | Literal["auto"] = "auto"
    """Peak learning rate; `auto`: the method's own default."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay after warm-up."""
    warmup: Fraction = 0.06
    """Share of all steps over which the learning rate rises from 0."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward passes of training, of the validation that chooses a checkpoint, and of `head.init`;
    `auto`: bf16 where the device multiplies it fast, else fp32. A result's metrics are computed in `encoder.dtype`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of head and adapter initialisation, batch order and dropout."""
    threads: Positive | Literal["auto"] = "auto"
    """CPU threads of each process; `auto`: `$PEFTLAB_THREADS`, or else the cores that the process may use, shared
    between local processes."""
    frozen_prefix: Literal["dropout", "eval", "cache"] = "dropout"
    """How the embeddings and layers below the lowest trained one run in training. `dropout`: as the others. `eval`:
    without dropout. `cache`: the same, and their output is kept on disk for later epochs, seeds and runs, in
    `$PEFTLAB_CACHE`, else `~/.cache/peftlab`; see `peftlab cache`."""
    cache_gb: Annotated[float, Field(gt=0)] = 20.0
    """Most gigabytes (10^9 bytes) of disk that the cache may take, over all encoders; beyond, states are computed anew,
    and the run says so. 64 MB of states wait in memory to be written; what was written is mapped, not read."""
    resume: Literal["auto", "never"] = "never"
    """`auto`: continue from the last checkpoint in `run.dir`, if there is one."""


class Optimizer(Record):
    """The optimizer and its parameter groups."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "paged_lion_8bit"] = "adamw"
    """All but `adamw` come from bitsandbytes: state in 8 bit for tensors of 4,096 values or more, paged between GPU and
    host memory. Lion takes a learning rate 3 to 10 times below AdamW's, to be written out, and mostly `beta2` 0.99."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Decoupled weight decay; biases and norms are exempt."""
    beta1: Fraction = 0.9
    """Decay of the first moment."""
    beta2: Fraction = 0.999
    """Decay of the second moment."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient of one optimizer step."""
    head_learning_rate: Annotated[float, Field(gt=0, lt=10)] | None = None
    """Learning rate of the head and other newly initialised modules; unset: `train.learning_rate`, but beside a trained
    encoder at most 5e-3, and at most 5e-4 with `head.init = "probe"`."""
    lora_plus: Annotated[float, Field(ge=1)] | None = None
    """Ratio of the learning rate of LoRA's B matrices to that of A (LoRA+, Hayou et al. 2024)."""


class Evaluation(Record):
    """Validation during training, and what is asked of the test score."""

    every: Positive | Literal["epoch"] = "epoch"
    """Validate after each epoch, or after this many optimizer steps."""
    metric: str = "auto"
    """Metric that chooses the best checkpoint; `auto`: the task's own."""
    patience: Positive | None = None
    """Stop after this many validations without a better metric."""
    batch_size: Positive = 128
    """Rows per forward pass in validation, test and prediction."""
    target: Annotated[float, Field(gt=0, lt=100)] | None = None
    """Test accuracy, or what the task has in its place, that the run must reach; the result says whether its interval
    clears it. Below 1, but for BLEU, which goes to 100."""
    margin: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    """Half-width asked of the 95 % interval of test accuracy; a test split too small for it is refused."""
    score_test: bool = True
    """`false`: put the test rows aside before training; for trials, which are chosen between on validation."""


class Run(Record):
    """Where the run is kept and who is told."""

    dir: str | None = None
    """Run folder; unset: `runs/<recipe>-<time>`."""
    trackers: tuple[str, ...] = ("tensorboard",)
    """Accelerate trackers by name (`tensorboard`, `wandb`, `mlflow`, ...); an empty list for none."""
    project: str = "peftlab"
    """Project name given to trackers."""
    recipe: str | None = None
    """Name of the recipe in records and reports; unset: the file name without its ending."""
    checkpoint_every: Positive | None = None
    """Also save the full training state after this many optimizer steps; it is always saved at each validation."""


class Budget(Record):
    """Ceilings and the target. A plan above a ceiling is refused before a step is spent; no run ends well above one."""

    trainable_parameters: Positive | None = None
    """Most parameters that may be trained, the head included; at the peak, where a method takes ranks away later."""
    shipped_mb: Annotated[float, Field(gt=0)] | None = None
    """Most megabytes (10^6 bytes) that the trained part may take on disk."""
    peak_memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Largest peak memory in gigabytes (10^9 bytes): the process's resident set, or the accelerator's if larger."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Longest wall time of the whole run, all sittings together. Before it is over training stops with the best model
    so far, which is saved and scored; the status is then `stopped`, and the run can be continued."""
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Longest median time of one text, in a batch of its own, on the machine of the run."""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Test accuracy that the run must reach: another place for `evaluation.target`."""


class Distill(Record):
    """Learn from what finished runs say of the texts, too: soft labels of one teacher or the mean of several."""

    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Run folders, from the recipe's folder or the current one. They must have the same labels, and must not have been
    trained on this run's validation and test texts."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """By which the logits of teachers and student are divided; above 1 the unlikely labels count for more."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the teachers in the loss of a labelled row; the label has the rest."""
    unlabelled: tuple[str, ...] = ()
    """Files of further texts without labels (`.txt`, a text a line, or `.jsonl`, also `.gz` or `.xz`); patterns too."""
    unlabelled_text: str = "text"
    """Key of the text in JSONL files of unlabelled texts."""
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Take only the unlabelled texts whose likeliest label has this probability by the teachers (self-training)."""
    targets: Literal["soft", "hard"] = "soft"
    """What an unlabelled text is trained on: the teachers' probabilities, or their likeliest label."""


PluginConfig_co = TypeVar("PluginConfig_co", bound=Record, covariant=True)


class Choice(BaseModel, Generic[PluginConfig_co]):
    """A plug-in named by a recipe, with its own typed settings. `name` is the plug-in's file name."""

    model_config = ConfigDict(frozen=True)

    name: str
    config: PluginConfig_co


class Recipe(BaseModel):
    """One training run, declared. `name` is `run.recipe` or the file's stem; `path` is the file it was read from."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    encoder: Encoder | None
    task: Choice[Record]
    data: Data
    curate: tuple[Choice[Record], ...] = ()
    head: Head = Head()
    method: Choice[Record]
    train: Train = Train()
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    run: Run = Run()
    budget: Budget = Budget()
    distill: Distill | None = None

    def needed_encoder(self) -> Encoder:
        """Return the encoder; UserError where the recipe has none."""
        if self.encoder is None:
            raise UserError("this run has no encoder")
        return self.encoder
