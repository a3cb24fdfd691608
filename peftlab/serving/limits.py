"""What a server takes and how long it waits: every bound in one place."""

from __future__ import annotations

from dataclasses import dataclass

from peftlab.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Texts are counted singly, whatever request they came in.

    A text waits `max_wait_ms` at most for others to share its forward pass, and then for the passes before it.
    `timeout` seconds after its arrival a request is answered, if only with the sentence that it took too long.
    """

    max_batch: int = 32
    """Texts in one forward pass."""
    max_wait_ms: float = 5.0
    """Milliseconds that a text waits for company while the model is idle."""
    max_queue: int = 1024
    """Texts that wait at a time; beyond, a request is answered 429."""
    max_texts: int = 64
    """Texts in one request."""
    max_characters: int = 10_000
    """Characters of one text."""
    max_body: int = 1_000_000
    """Bytes of a request's body."""
    max_requests: int = 512
    """Requests with a body that are under way at a time; beyond, one is answered 429."""
    timeout: float = 30.0
    """Seconds for the body to arrive, and again for the answer."""
    max_words: int = 96
    """Pieces into which a text is cut at most when the words that mattered are asked for."""

    def check(self) -> None:
        """Raise UserError where a bound is not above 0, or no request could ever be answered."""
        for name, value in vars(self).items():
            if value <= 0 and name != "max_wait_ms":
                raise UserError(f"--{name.replace('_', '-')} is {value}; expected a number above 0")
        if self.max_wait_ms < 0:
            raise UserError(f"--max-wait-ms is {self.max_wait_ms}; expected 0 (no waiting) or more")
        if self.max_texts > self.max_queue:
            raise UserError(
                f"--max-texts {self.max_texts} is more than --max-queue {self.max_queue}: such a request would be "
                "refused for ever"
            )
        if self.max_words >= self.max_queue:
            raise UserError(f"--max-queue is {self.max_queue}; expected more than {self.max_words}")
