"""The parts of `result.json`: one frozen record each. The field texts are those of `docs/result.md`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class ResultRecord(BaseModel):
    """Base of every part of a result: frozen, strict types, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Estimate(ResultRecord):
    """A metric with its 95 % interval."""

    value: float
    """Value on the test split."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n: Count
    """Rows that it was measured on."""


class Metrics(ResultRecord):
    """Metrics by name."""

    validation: dict[str, float] = {}
    """At the best checkpoint, without intervals: this split chose the checkpoint."""
    test: dict[str, Estimate] = {}
    """On the test split, scored once, after the best checkpoint was reloaded."""


class ClassResult(ResultRecord):
    """One class on the test split; null where the figure is 0/0."""

    label: str
    """Label name."""
    precision: float | None
    """Share of the rows given this label that have it; null where no row was given it."""
    recall: float | None
    """Share of the rows of this label that were found; null where there are none."""
    f1: float | None
    """Harmonic mean of both; null where the label is neither in the gold labels nor in the predictions."""
    support: Count
    """Gold rows of this label."""


class UndefinedMetric(ResultRecord):
    """Classes that an average leaves out."""

    metric: str
    """Name of the metric."""
    labels: tuple[str, ...]
    """Classes for which it is undefined."""
    reason: str
    """Why."""


class ClassScores(ResultRecord):
    """The test split in detail, for classification."""

    per_class: tuple[ClassResult, ...]
    """A row per class, in the order of the label indices."""
    confusion: tuple[tuple[Count | tuple[Count, ...], ...], ...]
    """Counts: row gold label, column predicted label. Multi-label: [[TN, FP], [FN, TP]] of each label."""
    threshold: float | None = None
    """Probability from which a label is predicted; null for single-label sets."""
    undefined: tuple[UndefinedMetric, ...] = ()
    """What could not be computed for which classes."""


class TaskTable(ResultRecord):
    """A table of a task."""

    title: str
    """What it shows, and of how many rows."""
    columns: tuple[str, ...]
    """Heads of the columns."""
    rows: tuple[tuple[str | int | float | None, ...], ...]
    """Cells; null where a figure is 0/0."""


class RecipeUsed(ResultRecord):
    """The recipe."""

    name: str
    """File name without its ending."""
    hash: str
    """SHA-256 of the resolved recipe."""


class Quantised(ResultRecord):
    """Frozen weights in fewer bits: what they take, and how far the trained model's logits are from those in fp32.

    The same trained part was put on the encoder in fp32, after training, and given the same validation rows.
    """

    kind: Literal["int8", "nf4"]
    """How the encoder's linear layers are stored."""
    linear_bytes: Count
    """Bytes of the encoder's linear layers as stored, scales and code books included."""
    linear_bytes_fp32: Count
    """Bytes of the same layers in fp32."""
    other_bytes: Count
    """Bytes of the encoder's other weights as stored: embeddings, norms."""
    logit_drift_max: Amount
    """Largest absolute difference of a logit from the model in fp32."""
    logit_drift_mean: Amount
    """Mean absolute difference of a logit from the model in fp32."""
    changed_predictions: Count
    """Rows that the model in fp32 gives another label, or other labels."""
    rows: Count
    """Validation rows compared."""

    @property
    def linear_share(self) -> float:
        """Bytes of the linear layers as a share of those in fp32."""
        return self.linear_bytes / self.linear_bytes_fp32 if self.linear_bytes_fp32 else 0.0


class EncoderUsed(ResultRecord):
    """The encoder: both fields are null for methods that have none."""

    requested: str | None = None
    """As the recipe names it."""
    used: str | None = None
    """What was loaded; another name than `requested` only where a stand-in was used."""
    revision: str | None = None
    """Commit of a hub encoder, or hash of a local one, where known."""
    license: str | None = None
    """License of the encoder, as its own model card or package gives it."""
    quantised: Quantised | None = None
    """Its weights in 8 or 4 bit against those in fp32; null where they are in full precision."""


class Parameters(ResultRecord):
    """Counts of parameters."""

    trainable: Count
    """Trained parameters, the head included; where a method takes some away while training, those at its start."""
    surviving: Count | None = None
    """Those of `trainable` that were left in the end; null for methods that take none away."""
    total: Count
    """All parameters of the model, the trained ones included."""
    embedding: Count | None = None
    """Those of `total` in embedding tables."""
    shipped_bytes: Count
    """Bytes of the saved trained part, as files on disk."""
    shipped: Count | None = None
    """Numbers in the saved weights; null where they are not kept as tensors."""
    newly_initialised: tuple[str, ...] = ()
    """Modules that the checkpoint lacked; all of them are trained and saved."""

    @property
    def trainable_share(self) -> float:
        """Trained parameters as a share of all."""
        return self.trainable / self.total if self.total else 0.0

    @property
    def embedding_share(self) -> float | None:
        """Embedding parameters as a share of all."""
        return self.embedding / self.total if self.total and self.embedding is not None else None


class Seconds(ResultRecord):
    """Durations in seconds."""

    train: Amount | None = None
    """Wall time of the optimizer steps, or of the fit for methods without steps; without validations."""
    test: Amount | None = None
    """Wall time of the last predictions: of the validation and the test split by the model to be saved."""
    total: Amount
    """Wall time from start to finish, over all sessions of a resumed run."""
    cpu: Amount
    """User and system time of the main process, all threads."""


class Memory(ResultRecord):
    """Peak memory in bytes."""

    peak_rss_bytes: Count | None = None
    """Largest resident set of the main process."""
    peak_device_bytes: Count | None = None
    """Largest allocation on the accelerator; null on CPU."""


class Best(ResultRecord):
    """The checkpoint that was tested."""

    step: Count
    """Optimizer step."""
    epoch: float
    """Epochs trained by then."""
    metric: str
    """Validation metric that chose it."""
    value: float
    """Its value there."""


class Device(ResultRecord):
    """Where it ran."""

    type: str
    """`cpu`, `cuda`, ..."""
    name: str
    """Model of the processor or accelerator."""
    threads: Count
    """CPU threads of each process."""
    processes: Count
    """Processes that trained together."""


class DataUsed(ResultRecord):
    """The labelled rows."""

    fingerprint: str
    """SHA-256 over ids, texts, pairs and labels of the three splits."""
    source: dict[str, Any]
    """What was asked for and what was used, files with their SHA-256."""
    rows: dict[str, Count]
    """Rows of each split, as trained on and scored."""
    synthetic: bool = False
    """The rows are made up."""
    language: str | None = None
    """Language code of the texts, where known."""


class Distilled(ResultRecord):
    """The runs that taught this one."""

    teachers: tuple[str, ...]
    """Their folders, as the recipe names them."""
    fingerprint: str
    """SHA-256 over their trained parts and the unlabelled texts."""
    unlabelled: Count
    """Texts without labels that they were asked about; repeats and texts of the run's own splits are left out."""


class Target(ResultRecord):
    """The test score that the recipe asks for: accuracy, or what the task has in its place."""

    asked: float
    """`evaluation.target` of the recipe."""
    verdict: Literal["reached", "not_reached", "undecided"]
    """`reached`: the whole interval is at or above it; `not_reached`: the whole interval is below; else `undecided`."""


class Ceiling(ResultRecord):
    """A ceiling of the recipe, in the unit that its key names."""

    asked: Amount
    """What the recipe allows."""
    measured: Amount
    """What the run came to."""


class RoundTrip(ResultRecord):
    """What was saved, loaded back in fresh objects."""

    max_logit_difference: Amount
    """Largest absolute difference of a logit."""
    rows: Count
    """Rows compared."""
