"""Rows of numbers judged by an encoder that was taught what damaged rows look like."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import Arrays, DetectorInfo, Floats, Ints, ItemDetector, Memory
from streamad.detectors.events.usual import Usual, explain_numbers
from streamad.errors import ArtifactError, ConfigError, NotFittedError, TrainingError
from streamad.events.decades import Decades
from streamad.events.encoder import LAYERS, Encoder, lengths, nearest, whitening
from streamad.events.numbers import NumberScale
from streamad.events.rows import EventRows
from streamad.records import Explanation

HELD_OUT: Final = 5
"""One in so many training rows is not trained on: it measures what is ordinary."""
FEW: Final = 20
"""Rows below which none is held out."""
LEAST_UNIT: Final = 1e-3
"""Distances are told apart no finer: all rows of training may be in one place."""


class Clan(ItemDetector[EventRows]):
    """Decide by how far a row of numbers is from ordinary ones, as an encoder sees it.

    The encoder is trained on ordinary rows alone: it draws them together, and away from copies of
    which half of the numbers are replaced by random ones, which stand for attacks. A row's distance
    is that to the nearest of a few centres of ordinary rows, averaged over encoders. Beside it
    stands the Mahalanobis distance: directions show little of how far outside a number lies. The
    score is the mean of both, in decades of what ordinary rows have that were not trained on;
    beyond the farthest of these, a decade more for as much as lies between the rarest tenth and the
    rarest hundredth of them.

    Numbers alone are judged: categories are passed over (`ape`, `rare_events`). Each is folded,
    ``sign(x) log(1 + |x|)``, and measured in standard deviations; a missing one is the mean.

    Cost per row: about 30,000 multiplications per encoder. To avoid: numbers that count up or name
    something (sequence numbers, ports, times).

    Parameters
    ----------
    n_seeds : encoders
    n_centres : centres of ordinary rows per encoder, at the most
    hidden, dim : width of the encoder, length of a direction
    steps : of training, of 256 rows each
    replaced : probability that a number of a copy is replaced
    seed : of training, and of the choice of held-out rows
    """

    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="clan",
        summary="rows of numbers (flow records) far from ordinary ones, by a contrastive encoder",
        modality="events",
        min_size=1,
        default_size=1,
        needs_training=True,
        numeric=True,
        cost="moderate",
        tail=(1.0, 2.0, 3.0, 4.0),
        paper="Wilkie et al., Contrastive Learning using Augmented Negatives (CLAN), IEEE CSR 2025",
    )
    finite: ClassVar[tuple[str, ...]] = ("centres", "units", "whitening", *LAYERS)
    calibrated = True

    def __init__(  # noqa: PLR0913 each is a setting of the pipeline file, all with a default
        self,
        *,
        n_seeds: int = 3,
        n_centres: int = 8,
        hidden: int = 128,
        dim: int = 32,
        steps: int = 400,
        replaced: float = 0.5,
        seed: int = 0,
    ) -> None:
        sizes = (n_seeds, n_centres, hidden, dim, steps)
        if min(sizes) < 1 or n_seeds > 16 or n_centres > 64 or not 0 < replaced < 1:
            msg = (
                "n_seeds must be 1 .. 16, n_centres 1 .. 64, hidden, dim and steps 1 or more, and "
                f"replaced between 0 and 1, got {', '.join(map(str, sizes))} and {replaced}"
            )
            raise ConfigError(msg)
        self.n_seeds, self.n_centres, self.hidden, self.dim = n_seeds, n_centres, hidden, dim
        self.steps, self.replaced, self.seed = steps, replaced, seed
        self._scale: NumberScale | None = None
        self._encoders: list[Encoder] = []
        self._centres: list[Floats] = []
        self._whitening = np.empty((0, 0), np.float32)
        self._units = np.empty(0)
        self._usual: Usual | None = None
        self._decades = Decades.fit(np.empty(0, np.float32), np.empty(0))

    def fit(
        self,
        items: EventRows,
        /,
        *,
        groups: Ints | None = None,
        counts: NDArray[np.float64] | None = None,
    ) -> Self:
        """Train on ordinary rows; counts : float64 ``(n,)``, how often each happened (None: once).

        Raises
        ------
        TrainingError
            without a row, without a field of numbers, where counts are not positive, or where torch
            is not installed
        """
        mass = np.ones(len(items)) if counts is None else np.asarray(counts, np.float64)
        if not len(items) or mass.shape != (len(items),) or not (mass > 0).all():
            msg = f"expected rows, and counts above 0 for each, got {len(items)} rows"
            raise TrainingError(msg)
        training = _training()
        self._scale = NumberScale.fit(items, mass)
        rows = self._scale.of(items)
        held = np.zeros(len(rows), np.bool_)
        if len(rows) >= FEW:
            order = np.random.default_rng([self.seed, 0xC1A4]).permutation(len(rows))
            held[order[: len(rows) // HELD_OUT]] = True
        kept, asked = ~held, held if held.any() else ~held
        recipe = training.ClanRecipe(
            hidden=self.hidden, dim=self.dim, steps=self.steps, replaced=self.replaced
        )
        self._encoders, self._centres = [], []
        for number in range(self.n_seeds):
            seed = self.seed * 1000 + number
            weight = np.log1p(mass[kept])
            made = training.train_clan(rows[kept], weight, seed=seed, recipe=recipe)
            encoder = Encoder(**made)
            towards = encoder.directions(rows[kept])
            centres = training.centres_of(towards, weight, self.n_centres, seed=seed)
            self._encoders.append(encoder)
            self._centres.append(centres)
        self._whitening = whitening(rows[kept], mass[kept])
        far = self._distances(rows[asked])
        tenth, hundredth = (_quantile(far, mass[asked], 1 - share) for share in (0.1, 0.01))
        self._units = np.maximum(hundredth - tenth, LEAST_UNIT)
        self._usual = Usual.fit(rows[kept], self._nearest(rows[kept]), len(self._centres[0]))
        self._decades = Decades.fit(self._combined(far), mass[asked])
        return self

    def score(
        self, items: EventRows, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return one score per row, float32 ``(n,)``: decades, at least 0."""
        scale, _ = self._fitted()
        return self._decades.of(self._combined(self._distances(scale.of(items))))

    def explain(
        self, items: EventRows, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> list[Explanation]:
        """Return per row which numbers are farthest from those of ordinary rows like it."""
        scale, usual = self._fitted()
        rows = scale.of(items)
        return explain_numbers(items, scale, usual, rows)

    def state(self) -> Arrays:
        """Return all that was learned; empty before ``fit``."""
        if self._scale is None or self._usual is None:
            return {}
        most = max(map(len, self._centres))
        # A centre twice is the nearest one no more often.
        centres = [np.pad(one, ((0, most - len(one)), (0, 0)), "edge") for one in self._centres]
        layers = {name: np.stack([getattr(e, name) for e in self._encoders]) for name in LAYERS}
        parts = {
            "numbers": self._scale.state(),
            "usual": self._usual.state(),
            "decades": self._decades.state(),
        }
        return {
            **{f"{part}.{name}": a for part, own in parts.items() for name, a in own.items()},
            **layers,
            "centres": np.stack(centres),
            "units": self._units,
            "whitening": self._whitening,
        }

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned; ArtifactError where it is damaged."""
        if not state:
            return self
        try:
            scale = NumberScale.from_state(_part(state, "numbers"))
            encoders = _encoders(state, len(scale.names))
            centres = np.ascontiguousarray(state["centres"], np.float32)
            units = np.asarray(state["units"], np.float64)
            shape = (len(encoders), centres.shape[1] or 1, len(encoders[0].out_bias))
            n_members, square = (len(encoders) + 1,), (len(scale.names),) * 2
            white = np.ascontiguousarray(state["whitening"], np.float32)
            fits = centres.shape == shape and units.shape == n_members and white.shape == square
            if not fits or not np.isfinite(white).all() or not (units > 0).all():
                msg = f"centres {centres.shape} and units {units.shape} of {len(encoders)} encoders"
                raise ValueError(msg)  # noqa: TRY301 one way to refuse an artifact
            usual = Usual.from_state(_part(state, "usual"), shape[1], len(scale.names))
            decades = Decades.from_state(_part(state, "decades"))
        except (KeyError, ValueError, IndexError) as error:
            msg = f"clan: the artifact lacks a part, or one does not fit ({error}); fit it again"
            raise ArtifactError(msg) from error
        self._scale, self._encoders, self._usual = scale, encoders, usual
        self._centres, self._units, self._decades = list(centres), units, decades
        self._whitening = white
        return self

    def _fitted(self) -> tuple[NumberScale, Usual]:
        if self._scale is None or self._usual is None:
            msg = "clan has not been fitted: call fit, or load an artifact of `streamad fit clan`"
            raise NotFittedError(msg)
        return self._scale, self._usual

    def _distances(self, rows: Floats) -> Floats:
        """Return distances ``(n, n_seeds + 1)``: per encoder to the nearest centre, Mahalanobis."""
        pairs = zip(self._encoders, self._centres, strict=True)
        found = [nearest(one.directions(rows), c)[0] for one, c in pairs]
        return np.stack([*found, lengths(rows, self._whitening)], axis=1)

    def _nearest(self, rows: Floats) -> Ints:
        """Return the nearest centre of the first encoder."""
        return nearest(self._encoders[0].directions(rows), self._centres[0])[1]

    def _combined(self, far: Floats) -> Floats:
        """Return one distance per row, in units of the tail of ordinary rows."""
        encoded = np.zeros(len(far))
        for number in range(len(self._encoders)):
            encoded += far[:, number] / self._units[number]
        mean = (encoded / len(self._encoders) + far[:, -1] / self._units[-1]) / 2
        return np.asarray(mean, np.float32)


def _quantile(values: Floats, mass: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return the weighted quantile of each column."""
    found = []
    for column in values.T:
        order = np.argsort(column, kind="stable")
        at = np.searchsorted(np.cumsum(mass[order]), share * mass.sum())
        found.append(float(column[order[min(int(at), len(order) - 1)]]))
    return np.array(found)


def _encoders(state: Arrays, n_features: int) -> list[Encoder]:
    """Return the encoders of an artifact; ValueError where an array has another shape."""
    n = len(state["skip"])
    if not 1 <= n <= 16 or any(len(state[name]) != n for name in LAYERS):
        msg = f"{n} encoders"
        raise ValueError(msg)
    made = []
    for number in range(n):
        own = {name: np.ascontiguousarray(state[name][number], np.float32) for name in LAYERS}
        one = Encoder(**own)
        if one.skip.ndim != 2 or len(one.skip) != n_features:
            msg = f"an encoder of inputs {one.skip.shape} for {n_features} numbers"
            raise ValueError(msg)
        for name, shape in one.shapes().items():
            if own[name].shape != shape or not np.isfinite(own[name]).all():
                msg = f"{name} is {own[name].shape}, expected finite numbers {shape}"
                raise ValueError(msg)
        made.append(one)
    return made


def _training() -> Any:
    """Load the training code, which needs an extra that serving does not."""
    try:
        return import_module("streamad.training.clan")
    except ImportError as error:
        msg = f"clan is trained with torch ({error}); install streamad-pipeline[train]"
        raise TrainingError(msg) from error


def _part(state: Arrays, part: str) -> dict[str, NDArray[Any]]:
    begin = f"{part}."
    return {name[len(begin) :]: a for name, a in state.items() if name.startswith(begin)}
