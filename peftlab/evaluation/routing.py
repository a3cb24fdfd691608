"""What a calibrated model does with one text: answer by itself, or leave it to people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peftlab.runs.calibration import Calibration


def route(chances: NDArray[np.float64], calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return calibrated probabilities [rows, labels], and which rows are routed [rows]; the others go to people.

    `chances`: the softmax of the logits as they are. The predicted label stays the same.
    """
    calibrated = tempered(chances, calibration.temperature)
    if calibration.threshold is None:
        return calibrated, np.zeros(len(calibrated), np.bool_)
    return calibrated, calibrated.max(axis=1) >= calibration.threshold


def tempered(chances: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return softmax(logits / temperature), [rows, labels], from `chances`, the softmax of the logits."""
    with np.errstate(divide="ignore"):  # a probability of 0 stays 0
        logits = np.log(chances) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
