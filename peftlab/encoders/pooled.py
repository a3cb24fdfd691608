"""Models that pool the last layer of an encoder: a classifier with one linear layer, and an embedder without any."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput


class Pooled(nn.Module):
    """Encoder and pooling; what is made of the pooled vector is up to `head`.

    `mean` averages the last hidden states over the tokens of the text (Reimers and Gurevych 2019, section 3); `cls`
    takes the first token's. `forward` takes what the encoder takes.
    """

    def __init__(self, encoder: Any, pooling: Literal["mean", "cls"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.config: Any = encoder.config
        self.pooling = pooling

    @property
    def device(self) -> torch.device:
        """Where the weights are; peft asks for it before it places virtual tokens."""
        found: torch.device = next(self.parameters()).device
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder's weights; peft casts the keys and values of a prefix to it."""
        found: torch.dtype = next(self.encoder.parameters()).dtype
        return found

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [batch, hidden size] from `hidden` [batch, tokens, hidden size]."""
        if self.pooling == "cls":
            return hidden[:, 0]
        # The sum over tokens is taken in fp32: in bf16 a long text loses its smaller addends.
        mask = attention_mask.unsqueeze(-1).to(torch.float32)
        return (hidden.float() * mask).sum(1) / mask.sum(1).clamp(min=1.0)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        text_tokens: int | None = None,
        **passed: Any,
    ) -> SequenceClassifierOutput:
        """Return what `head` makes of the text, as `logits`.

        `past_key_values` holds the keys and values of a trained prefix. Only the last `text_tokens` positions are
        pooled, all where it is None: before them stand virtual tokens. `passed` holds what else peft forwards to an
        encoder (`output_attentions`, ...).
        """
        known = {"position_ids", "output_attentions", "output_hidden_states"}
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            "past_key_values": past_key_values,
            **{name: value for name, value in passed.items() if name in known},
        }
        hidden = self.encoder(**{name: value for name, value in inputs.items() if value is not None}).last_hidden_state
        if attention_mask is None:
            attention_mask = torch.ones(hidden.shape[:2], device=hidden.device)
        hidden = hidden if text_tokens is None else hidden[:, -text_tokens:]
        return SequenceClassifierOutput(logits=self.head(hidden, attention_mask[:, -hidden.shape[1] :]))

    def head(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one row a text, [batch, ...], from the encoder's last hidden states."""
        raise NotImplementedError


class PooledClassifier(Pooled):
    """Encoder, pooling, dropout, linear head: `forward` returns logits of shape [batch, labels]."""

    def __init__(self, encoder: Any, pooling: Literal["mean", "cls"], labels: int, dropout: float) -> None:
        super().__init__(encoder, pooling)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.config.hidden_size, labels)
        nn.init.normal_(self.classifier.weight, std=getattr(self.config, "initializer_range", 0.02))
        nn.init.zeros_(self.classifier.bias)

    def head(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return logits, [batch, labels], from the encoder's last hidden states."""
        pooled = self.pool(hidden, attention_mask)
        logits: Tensor = self.classifier(self.dropout(pooled).to(self.classifier.weight.dtype))
        return logits


class PooledEmbedder(Pooled):
    """Encoder, pooling, and division by the Euclidean norm: `forward` returns embeddings, [batch, hidden size]."""

    def head(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings of length 1 in fp32, [batch, hidden size], from the encoder's last hidden states."""
        return functional.normalize(self.pool(hidden, attention_mask).float(), dim=-1)


class Hidden(nn.Module):
    """The encoder of a pooled classifier under the name that it has there, without a head."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.config: Any = encoder.config

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the last hidden states, [batch, tokens, hidden size]."""
        hidden: Tensor = self.encoder(**inputs).last_hidden_state
        return hidden
