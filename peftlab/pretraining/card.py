"""The model card of a pretrained encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftlab.recipe.pretraining import PretrainRecipe
    from peftlab.runs.pretraining_result import PretrainingResult


def encoder_card(result: PretrainingResult, recipe: PretrainRecipe) -> str:
    """Return the README of the encoder folder: what it is, what it read, what was measured, what is not known."""
    shape = result.architecture
    origin = f"Continued from `{result.started_from}`" if result.started_from else "Trained from random weights"
    if recipe.architecture.start_from is not None:
        origin = (
            f"Its layers started from those of `{recipe.architecture.start_from}`, its vocabulary is its own. Trained"
        )
    through = f" through the method `{result.method}`, merged into the weights" if result.method else ""
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: fill-mask",
        "---",
        f"# {recipe.name}",
        "",
        f"A BERT-like text encoder with its masked-language-model head. {origin}{through} by peftlab "
        f"{result.versions.get('peftlab', '')}, recipe `{recipe.name}` ({result.recipe.hash[:12]}).",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value:,} |" for name, value in shape.items()),
        f"| vocabulary | {result.vocabulary or 0:,} |",
        f"| parameters | {result.total or 0:,} |",
        f"| pooling it states | {recipe.save.pooling} |",
        "",
        "## Text",
        "",
        *_text(result),
        "",
        "## Training",
        "",
        f"{result.steps:,} optimizer steps, {result.epochs:g} epochs, {result.tokens:,} tokens read; learning rate "
        f"{recipe.train.learning_rate}, {recipe.train.batch_size * recipe.train.accumulation} sequences a step, seed "
        f"{result.seed}; masks of {recipe.masking.share:.0%} of the tokens, whole words: {recipe.masking.whole_words}."
        + _taught(recipe)
        + _standardised(recipe),
        "",
        *_measured(result),
        "",
        "## What is not known",
        "",
        "Held-out perplexity compares encoders of one vocabulary and one text. It says nothing of a task: measure that "
        "with a training recipe. Whoever shares this encoder answers for the licences of the text that it read.",
        "",
    ]
    return "\n".join(lines)


def _taught(recipe: PretrainRecipe) -> str:
    if recipe.teacher is None:
        return ""
    return (
        f" `{recipe.teacher.name}` taught it its last hidden states, with {recipe.teacher.weight:.0%} of the loss, on "
        "the text without masks."
    )


def _standardised(recipe: PretrainRecipe) -> str:
    if not recipe.save.standardise:
        return ""
    return (
        " Each dimension of its last hidden states has mean 0 and variance 1 over the held-out text, by the last layer "
        "norm's weights."
    )


def _text(result: PretrainingResult) -> list[str]:
    text = result.text
    if text is None:
        return ["Not recorded."]
    return [
        f"{text.lines:,} passages of {', '.join(text.names)} (SHA-256 {text.sha256[:12]}), packed into "
        f"{text.train_sequences:,} sequences of {text.length} tokens; the vocabulary does not know "
        f"{text.unknown_share:.2%} of the tokens.",
    ]


def _measured(result: PretrainingResult) -> list[str]:
    held_out = result.held_out
    if held_out is None:
        return ["Held-out text was not measured."]
    return [
        f"Held-out perplexity {held_out.perplexity:.2f}; {held_out.accuracy:.1%} of {held_out.predictions:,} masked "
        "tokens predicted right.",
    ]
