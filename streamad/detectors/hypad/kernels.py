"""The trained network of HypAD on windows, one at a time; without torch.

A window is run by itself and in one order of operations, so that its score has the same bits alone
and in a batch. Sums over inputs run outermost, over rows of matrices ``(inputs, outputs)``: the
compiler makes vector instructions of the inner loop without changing the order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
from streamad.detectors.base import Floats

Doubles = NDArray[np.float64]
LARGEST_NORM = np.float32(1 - 4e-3)
"""As in `streamad.networks.hypad`."""
TINY = 1e-9
LEAK = np.float32(0.2)
AROUND = 8
"""Samples on either side of the judged one that count as it."""


class Both(NamedTuple):
    """An LSTM in both directions: ``(inputs, 4 hidden)``, ``(hidden, 4 hidden)``, ``(4 hidden,)``.

    Gates stand in torch's order: input, forget, cell, output.
    """

    into: Floats
    again: Floats
    bias: Floats
    into_back: Floats
    again_back: Floats
    bias_back: Floats


class Layers(NamedTuple):
    """All of a trained network, float32; matrices are ``(inputs, outputs)``.

    critic_inner, critic_inner_bias : ``(n_layers, width, width)``, ``(n_layers, width)``
    """

    encode: Both
    latent: Floats
    latent_bias: Floats
    seeds: Floats
    seeds_bias: Floats
    first: Both
    second: Both
    out: Floats
    out_bias: Floats
    ball: Floats
    ball_bias: Floats
    critic: Floats
    critic_bias: Floats
    critic_inner: Floats
    critic_inner_bias: Floats
    critic_last: Floats
    critic_last_bias: Floats


@compiled
def add_product(row: Floats, matrix: Floats, out: Floats) -> None:
    """Add ``row @ matrix`` to ``out``."""
    for k in range(len(row)):
        a, line = row[k], matrix[k]
        for j in range(len(out)):
            out[j] += a * line[j]


@compiled
def run_lstm(
    steps: Floats,
    into: Floats,
    again: Floats,
    bias: Floats,
    backward: int,
    out: Floats,
) -> None:
    """Write the outputs of one direction of an LSTM into ``out`` ``(n_steps, hidden)``.

    into, again, bias : as in `Both`; backward : 1 from the newest step to the oldest
    """
    n_steps, hidden = out.shape
    gates = np.empty(4 * hidden, np.float32)
    cell = np.zeros(hidden, np.float32)
    state = np.zeros(hidden, np.float32)
    one = np.float32(1)
    for s in range(n_steps):
        t = n_steps - 1 - s if backward == 1 else s
        gates[:] = bias
        add_product(steps[t], into, gates)
        if s > 0:
            add_product(state, again, gates)
        for j in range(hidden):
            taken = one / (one + np.exp(-gates[j]))
            kept = one / (one + np.exp(-gates[hidden + j]))
            shown = one / (one + np.exp(-gates[3 * hidden + j]))
            cell[j] = kept * cell[j] + taken * np.tanh(gates[2 * hidden + j])
            state[j] = shown * np.tanh(cell[j])
            out[t, j] = state[j]


@compiled
def _both_ways(steps: Floats, lstm: Both) -> Floats:
    """Return the outputs of both directions side by side, ``(n_steps, 2 hidden)``."""
    n_steps, hidden = len(steps), len(lstm.again)
    made = np.empty((n_steps, 2 * hidden), np.float32)
    one = np.empty((n_steps, hidden), np.float32)
    run_lstm(steps, lstm.into, lstm.again, lstm.bias, 0, one)
    made[:, :hidden] = one
    run_lstm(steps, lstm.into_back, lstm.again_back, lstm.bias_back, 1, one)
    made[:, hidden:] = one
    return made


@compiled
def _point(row: Floats, weight: Floats, bias: Floats, out: Floats) -> None:
    """Write the point of the ball of a row: ``project(exp(W x) + b)``; ``bias`` is a point."""
    out[:] = 0
    add_product(row, weight, out)
    square = 0.0
    for j in range(len(out)):
        square += np.float64(out[j]) * out[j]
    norm = max(np.sqrt(square), TINY)
    shrink = np.float32(np.tanh(norm) / norm)
    both, of_left, of_right = 0.0, 0.0, 0.0
    for j in range(len(out)):
        out[j] *= shrink
        both += np.float64(out[j]) * bias[j]
        of_left += np.float64(out[j]) * out[j]
        of_right += np.float64(bias[j]) * bias[j]
    below = max(1 + 2 * both + of_left * of_right, TINY)
    of_out, of_bias = (1 + 2 * both + of_right) / below, (1 - of_left) / below
    square = 0.0
    for j in range(len(out)):
        out[j] = np.float32(of_out * out[j] + of_bias * bias[j])
        square += np.float64(out[j]) * out[j]
    norm = np.sqrt(square)
    if norm > LARGEST_NORM:
        shrink = np.float32(LARGEST_NORM / norm)
        for j in range(len(out)):
            out[j] *= shrink


@compiled
def _norm(point: Floats) -> float:
    square = 0.0
    for j in range(len(point)):
        square += np.float64(point[j]) * point[j]
    return float(np.sqrt(square))


@compiled
def _distance(left: Floats, right: Floats) -> float:
    """Return the hyperbolic distance of two points of the ball."""
    apart, of_left, of_right = 0.0, 0.0, 0.0
    for j in range(len(left)):
        gap = np.float64(left[j]) - right[j]
        apart += gap * gap
        of_left += np.float64(left[j]) * left[j]
        of_right += np.float64(right[j]) * right[j]
    a = 2 * apart / max((1 - of_left) * (1 - of_right), TINY)
    return float(np.log1p(a + np.sqrt(a * (a + 2))))


@compiled
def reconstruct(window: Floats, n_patches: int, layers: Layers) -> Floats:
    """Return the reconstruction ``(size, n_variates)`` of a window of that shape."""
    size, n_variates = window.shape
    patch = len(layers.out_bias) // n_variates
    short = n_patches * patch - size
    samples = np.empty((n_patches * patch, n_variates), np.float32)
    for t in range(short):
        samples[t] = window[0]
    samples[short:] = window
    run = _both_ways(samples.reshape(n_patches, patch * n_variates), layers.encode)
    hidden = len(layers.encode.again)
    code = layers.latent_bias.copy()
    # Each direction's last state: of the newest patch, and of the oldest.
    add_product(run[n_patches - 1, :hidden], layers.latent[:hidden], code)
    add_product(run[0, hidden:], layers.latent[hidden:], code)
    begun = layers.seeds_bias.copy()
    add_product(code, layers.seeds, begun)
    run = _both_ways(begun.reshape(n_patches, len(layers.first.into)), layers.first)
    run = _both_ways(run, layers.second)
    made = np.empty((n_patches, patch * n_variates), np.float32)
    for t in range(n_patches):
        made[t] = layers.out_bias
        add_product(run[t], layers.out, made[t])
    return np.tanh(made).reshape(n_patches * patch, n_variates)[short:].copy()


@compiled
def criticise(window: Floats, layers: Layers) -> float:
    """Return what the critic makes of a window: higher is more like those it was trained on."""
    row = layers.critic_bias.copy()
    add_product(window.copy().reshape(window.size), layers.critic, row)
    _leak(row)
    for k in range(len(layers.critic_inner)):
        after = layers.critic_inner_bias[k].copy()
        add_product(row, layers.critic_inner[k], after)
        _leak(after)
        row = after
    found = np.float64(layers.critic_last_bias[0])
    for j in range(len(row)):
        found += np.float64(row[j]) * layers.critic_last[j, 0]
    return float(found)


@compiled
def _leak(row: Floats) -> None:
    for j in range(len(row)):
        if row[j] < 0:
            row[j] *= LEAK


@compiled
def run_windows(
    windows: Floats, judged: int, n_patches: int, layers: Layers
) -> tuple[Floats, Doubles, Doubles, Doubles, Doubles]:
    """Return what the network makes of windows: the fields of `Read` beside this module.

    Local is the distance between the window's point and that of the window in which the samples
    around the judged one are as reconstructed.
    """
    n, size, n_variates = windows.shape
    usual = np.empty((n, size, n_variates), np.float32)
    apart = np.empty((n, n_variates))
    local = np.empty((n, n_variates))
    certainty = np.empty((n, n_variates))
    critics = np.empty(n)
    here, there, mended = (
        np.empty(size, np.float32),
        np.empty(size, np.float32),
        np.empty(size, np.float32),
    )
    first, last = max(judged - AROUND, 0), min(judged + AROUND, size)
    row = np.empty(size, np.float32)
    for i in range(n):
        usual[i] = reconstruct(windows[i], n_patches, layers)
        critics[i] = criticise(windows[i], layers)
        for v in range(n_variates):
            row[:] = windows[i, :, v]
            _point(row, layers.ball, layers.ball_bias, here)
            row[first:last] = usual[i, first:last, v]
            _point(row, layers.ball, layers.ball_bias, mended)
            row[:] = usual[i, :, v]
            _point(row, layers.ball, layers.ball_bias, there)
            apart[i, v] = _distance(there, here)
            local[i, v] = _distance(mended, here)
            certainty[i, v] = _norm(there)
    return usual, apart, local, certainty, critics
