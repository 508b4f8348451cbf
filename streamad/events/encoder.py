"""Directions of rows of numbers, and how far they are from the nearest centre; without torch."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled

Floats = NDArray[np.float32]
LAYERS: Final = (
    "skip", "skip_bias", "into", "into_bias", "block", "block_bias", "out", "out_bias",
)  # fmt: skip


class Encoder(NamedTuple):
    """The weights of `streamad.networks.clan.ClanNetwork`, matrices as ``(inputs, outputs)``."""

    skip: Floats
    skip_bias: Floats
    into: Floats
    into_bias: Floats
    block: Floats
    block_bias: Floats
    out: Floats
    out_bias: Floats

    def directions(self, rows: Floats) -> Floats:
        """Return unit vectors, float32 ``(n, dim)``, of rows ``(n, d)``; each by itself."""
        return encode_rows(np.ascontiguousarray(rows, np.float32), *self)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape that each array must have, by the sizes of the first and the last."""
        (d, hidden), dim = self.skip.shape, self.out_bias.size
        return {
            "skip": (d, hidden), "skip_bias": (hidden,), "into": (d, hidden),
            "into_bias": (hidden,), "block": (hidden, hidden), "block_bias": (hidden,),
            "out": (hidden, dim), "out_bias": (dim,),
        }  # fmt: skip


@compiled
def nearest(directions: Floats, centres: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return ``(1 - cos) / 2`` of each direction and its nearest centre, and which that is."""
    n, dim = directions.shape
    found, which = np.empty(n, np.float32), np.empty(n, np.int32)
    for i in range(n):
        most, at = np.float32(-2), 0
        for k in range(len(centres)):
            cosine = np.float32(0)
            for j in range(dim):
                cosine += directions[i, j] * centres[k, j]
            if cosine > most:
                most, at = cosine, k
        found[i], which[i] = max((np.float32(1) - most) / np.float32(2), np.float32(0)), at
    return found, which


@compiled
def _add_product(row: Floats, matrix: Floats, out: Floats) -> None:
    """Add ``row @ matrix`` to ``out``."""
    for k in range(len(row)):
        a = row[k]
        if a != 0:
            line = matrix[k]
            for j in range(len(out)):
                out[j] += a * line[j]


def whitening(rows: Floats, mass: NDArray[np.float64]) -> Floats:
    """Return the matrix ``(d, d)`` by which rows around 0 get Mahalanobis distances, see `lengths`.

    The covariance is shrunk: a hundredth of its mean variance is added to each, so that a field
    that hardly varied, or that others determine, counts a lot and not without bound.
    """
    weight = (mass / mass.sum())[:, None]
    whole = rows.astype(np.float64)
    covariance = (whole * weight).T @ whole
    d = len(covariance)
    covariance += np.eye(d) * max(0.01 * float(np.trace(covariance)) / d, 1e-6)
    made = np.linalg.inv(np.linalg.cholesky(covariance)).T / np.sqrt(d)
    return np.ascontiguousarray(made, np.float32)


@compiled
def lengths(rows: Floats, matrix: Floats) -> Floats:
    """Return the length of each row times a matrix, float32 ``(n,)``; each by itself."""
    made = np.empty(len(rows), np.float32)
    line = np.empty(matrix.shape[1], np.float32)
    for i in range(len(rows)):
        line[:] = 0
        _add_product(rows[i], matrix, line)
        square = np.float32(0)
        for j in range(len(line)):
            square += line[j] * line[j]
        made[i] = np.sqrt(square)
    return made


@compiled
def _add_positive(values: Floats, out: Floats) -> None:
    for j in range(len(out)):
        if values[j] > 0:
            out[j] += values[j]


@compiled
def encode_rows(  # noqa: PLR0913, PLR0917 the arrays of `Encoder`
    rows: Floats,
    skip: Floats,
    skip_bias: Floats,
    into: Floats,
    into_bias: Floats,
    block: Floats,
    block_bias: Floats,
    out: Floats,
    out_bias: Floats,
) -> Floats:
    """Return the unit vector of each row, float32 ``(n, dim)``.

    Cost per row: ``2 d hidden + hidden^2 + hidden dim`` multiplications.
    """
    hidden, dim = len(skip_bias), len(out_bias)
    made = np.empty((len(rows), dim), np.float32)
    first, inner = np.empty(hidden, np.float32), np.empty(hidden, np.float32)
    for i in range(len(rows)):
        first[:] = skip_bias
        inner[:] = into_bias
        _add_product(rows[i], skip, first)
        _add_product(rows[i], into, inner)
        _add_positive(inner, first)
        inner[:] = block_bias
        _add_product(first, block, inner)
        _add_positive(inner, first)
        one = made[i]
        one[:] = out_bias
        _add_product(first, out, one)
        square = np.float32(0)
        for j in range(dim):
            square += one[j] * one[j]
        length = max(np.sqrt(square), np.float32(1e-12))
        for j in range(dim):
            one[j] /= length
    return made
