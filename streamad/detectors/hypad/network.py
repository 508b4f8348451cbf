"""The arrays of a trained network, and what it makes of windows."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from streamad.detectors.base import Arrays, Floats
from streamad.detectors.hypad.kernels import Both, Doubles, Layers, run_windows
from streamad.errors import ArtifactError

LSTMS: Final = ("encode", "first", "second")
NAMES: Final = tuple(
    name
    for layer in Layers._fields
    for name in ([f"{layer}_{side}" for side in Both._fields] if layer in LSTMS else [layer])
)
"""Of a network's arrays, as files name them."""
LARGEST: Final = 4096
"""Largest side of any array: more is no network of ours, and would take its time."""


class Read(NamedTuple):
    """What the network makes of windows.

    usual : float32 ``(n, size, n_variates)``, the reconstruction
    apart : float64 ``(n, n_variates)``, hyperbolic distance of window and reconstruction
    local : the same where only the judged samples differ
    certainty : float64 ``(n, n_variates)``, norm of the reconstruction's point: 0 (does not know)
        to 1 (certain)
    critic : float64 ``(n,)``
    """

    usual: Floats
    apart: Doubles
    local: Doubles
    certainty: Doubles
    critic: Doubles


class Network:
    """A network for windows of one shape; arrays are checked, for they come from a file."""

    def __init__(self, arrays: Arrays, *, size: int, n_variates: int) -> None:
        self._size, self._n_variates = size, n_variates
        own = {name: np.ascontiguousarray(arrays[name], np.float32) for name in NAMES}
        given = {name: one.shape for name, one in own.items()}
        wanted = _shapes(given, size, n_variates)
        wrong = [name for name in NAMES if given[name] != wanted.get(name)]
        if wrong or any(side > LARGEST for shape in given.values() for side in shape):
            name = wrong[0] if wrong else max(given, key=lambda one: max(given[one]))
            msg = (
                f"the artifact's array {name} has the shape {given[name]}, expected "
                f"{wanted.get(name)} for windows of {size} samples and {n_variates} variates; "
                "fit it again"
            )
            raise ArtifactError(msg)
        patch = given["out_bias"][0] // n_variates
        self._n_patches = -(-size // patch)
        self._layers = Layers._make(
            Both._make(own[f"{layer}_{side}"] for side in Both._fields)
            if layer in LSTMS
            else own[layer]
            for layer in Layers._fields
        )

    def read(self, windows: Floats, *, judged: int) -> Read:
        """Return what the network makes of scaled windows ``(n, size, n_variates)``, each alone.

        judged : the sample that a score is of
        """
        made: Read = Read._make(run_windows(windows, judged, self._n_patches, self._layers))
        return made


def _shapes(
    given: dict[str, tuple[int, ...]], size: int, n_variates: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape each array must have, by the free sizes: patch, hidden, latent, critic."""
    try:
        width, latent = given["out_bias"][0], given["latent_bias"][0]
        encoder, decoder = given["encode_again"][0], given["first_again"][0]
        critic, n_inner = given["critic_bias"][0], given["critic_inner"][0]
        seeds = given["first_into"][0]
    except IndexError:
        return {}
    if min(width, latent, encoder, decoder, critic, seeds) < 1 or width % n_variates:
        return {}
    n_patches = -(-size // (width // n_variates))
    made: dict[str, tuple[int, ...]] = {}
    inputs = {
        "encode": (width, encoder),
        "first": (seeds, decoder),
        "second": (2 * decoder, decoder),
    }
    for name, (n_in, hidden) in inputs.items():
        for back in ("", "_back"):
            made[f"{name}_into{back}"] = (n_in, 4 * hidden)
            made[f"{name}_again{back}"] = (hidden, 4 * hidden)
            made[f"{name}_bias{back}"] = (4 * hidden,)
    return made | {
        "latent": (2 * encoder, latent), "latent_bias": (latent,),
        "seeds": (latent, n_patches * seeds), "seeds_bias": (n_patches * seeds,),
        "out": (2 * decoder, width), "out_bias": (width,),
        "ball": (size, size), "ball_bias": (size,),
        "critic": (size * n_variates, critic), "critic_bias": (critic,),
        "critic_inner": (n_inner, critic, critic), "critic_inner_bias": (n_inner, critic),
        "critic_last": (critic, 1), "critic_last_bias": (1,),
    }  # fmt: skip
