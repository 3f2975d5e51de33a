"""How long a step takes: from what it must move and compute, or from steps that were measured."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from velollm_core.errors import VeloError


@frozen
class StepSample:
    """One measured step: ``tokens`` computed, ``context`` tokens of cache read, wall ``seconds``."""

    tokens: int
    context: int
    seconds: float


@frozen
class StepTimes:
    """Seconds of a step by what it holds.

    ``fixed`` is what every step costs: weights read once, launches. ``per_token`` is one token's arithmetic,
    ``per_context_token`` reading one token of cache. Where ``overlapped``, arithmetic runs while weights are read and
    only the longer of the two counts, as on a GPU; otherwise all three add up.
    """

    fixed: float
    per_token: float
    per_context_token: float
    overlapped: bool = False

    def seconds(self, tokens: int, context: int) -> float:
        """The time of a step that computes ``tokens`` and reads ``context`` tokens of cache."""
        work = tokens * self.per_token
        base = max(self.fixed, work) if self.overlapped else self.fixed + work
        return base + context * self.per_context_token

    @classmethod
    def roofline(
        cls, *, weight_bytes: float, kv_bytes_per_token: float, flops_per_token: float, bandwidth: float, flops: float
    ) -> StepTimes:
        """The least a step can take on a device of ``bandwidth`` bytes a second and ``flops`` operations a second."""
        return cls(weight_bytes / bandwidth, flops_per_token / flops, kv_bytes_per_token / bandwidth, overlapped=True)

    @classmethod
    def fit(cls, samples: Sequence[StepSample]) -> StepTimes:
        """The times that explain ``samples`` best by least squares, none of them below zero.

        Raises:
            VeloError: fewer than three samples, or all alike.
        """
        columns = [[1.0, float(sample.tokens), float(sample.context)] for sample in samples]
        seconds = [sample.seconds for sample in samples]
        for kept in ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)):
            found = _least_squares([[row[index] for index in kept] for row in columns], seconds)
            if found and all(value >= 0 for value in found):
                values = dict(zip(kept, found, strict=True))
                return cls(values.get(0, 0.0), values.get(1, 0.0), values.get(2, 0.0))
        raise VeloError(f"{len(samples)} measured steps do not say what a step takes: measure some of different sizes")


def _least_squares(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> list[float] | None:
    """The coefficients by the normal equations; None where they are not determined."""
    size = len(rows[0]) if rows else 0
    if not size or len(rows) < size:
        return None
    scale = [max(abs(row[index]) for row in rows) or 1.0 for index in range(size)]
    scaled = [[value / unit for value, unit in zip(row, scale, strict=True)] for row in rows]
    matrix = [
        [sum(row[i] * row[j] for row in scaled) for j in range(size)]
        + [sum(row[i] * target for row, target in zip(scaled, targets, strict=True))]
        for i in range(size)
    ]
    for pivot in range(size):
        best = max(range(pivot, size), key=lambda index: abs(matrix[index][pivot]))
        matrix[pivot], matrix[best] = matrix[best], matrix[pivot]
        if abs(matrix[pivot][pivot]) < 1e-12 * len(rows):
            return None
        for index in range(size):
            if index != pivot:
                factor = matrix[index][pivot] / matrix[pivot][pivot]
                matrix[index] = [a - factor * b for a, b in zip(matrix[index], matrix[pivot], strict=True)]
    return [matrix[index][size] / matrix[index][index] / scale[index] for index in range(size)]
