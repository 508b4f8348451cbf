"""APE, with closed forms beside it: the ensemble that is shipped for events."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import DetectorInfo
from streamad.detectors.events.peers import EVERY
from streamad.detectors.events.rare import RareEvents
from streamad.errors import TrainingError
from streamad.events.members import Energies
from streamad.events.vocabulary import Codes, Vocabulary

LOSSES: Final = ("binary", "ranking")
"""Of the paper, and the one that stays right where many fields depend on each other."""


class Ape(RareEvents):
    """Decide by what does not go together: embeddings of values, and counts of pairs.

    A few small models with seeds of their own (`streamad.training.ape`) give each event an energy,
    as many trained by the paper's loss as by ranking. For each loss the ranks among held-out
    events, averaged over seeds, are one more member beside the six of `RareEvents`. No member is to
    be trusted alone: on events of many dependent fields the paper's loss can rank attacks as calm.
    The mean leaves out the member that finds an event most ordinary, so that such a failure does
    not hide what all others see.

    Scoring needs no torch: a pair of values is one look-up for all members. Training does.

    Parameters
    ----------
    n_seeds : models trained per loss, 2 to 5 of use
    dim : length of a value's vector
    steps : of training at the most; it stops where the loss of held-out events is least
    min_count, max_values, buckets, seed : as in `RareEvents`
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="ape",
        summary="values and pairs that do not go together: embeddings and counts, an ensemble",
        modality="events",
        min_size=1,
        default_size=1,
        needs_training=True,
        learns=True,
        warm_up=0,
        learn_every=EVERY,
        delay=EVERY,
        cost="cheap",
        tail=(1.0, 2.0, 3.0, 4.0),
        paper="Chen et al., Entity Embedding-based Anomaly Detection for Heterogeneous Categorical "
        "Events, IJCAI 2016",
    )

    def __init__(  # noqa: PLR0913 the parameters of two halves
        self,
        *,
        n_seeds: int = 3,
        dim: int = 16,
        steps: int = 1000,
        min_count: int = 2,
        max_values: int = 32_768,
        buckets: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(min_count=min_count, max_values=max_values, buckets=buckets, seed=seed)
        if not 1 <= n_seeds <= 16 or dim < 1 or steps < 1:
            msg = f"n_seeds must be 1 .. 16, dim and steps 1 or more, got {n_seeds}, {dim}, {steps}"
            raise TrainingError(msg)
        self.n_seeds, self.dim, self.steps = n_seeds, dim, steps

    def _train(
        self,
        vocabulary: Vocabulary,
        events: Codes,
        mass: NDArray[np.float64],
        held: NDArray[np.bool_],
    ) -> Energies:
        if events.shape[1] < 2:
            return Energies.none(vocabulary.n_ids, events.shape[1])
        training = _training()
        models = [
            training.train_ape(
                events,
                np.log1p(mass),
                vocabulary.sizes.tolist(),
                seed=self.seed * 1000 + number,
                held=held,
                due=vocabulary.due,
                recipe=training.ApeRecipe(dim=self.dim, steps=self.steps, loss=loss),
            )
            for loss in LOSSES
            for number in range(self.n_seeds)
        ]
        vectors, weights, biases = (
            np.stack([getattr(model, name) for model in models])
            for name in ("vectors", "weights", "biases")
        )
        kinds = np.repeat(np.arange(len(LOSSES), dtype=np.uint8), self.n_seeds)
        return Energies(vectors, weights, biases, kinds)


def _training() -> Any:
    """Load the training code, which needs an extra that serving does not."""
    try:
        return import_module("streamad.training.ape")
    except ImportError as error:
        msg = f"ape is trained with torch ({error}); install streamad-pipeline[train]"
        raise TrainingError(msg) from error
