"""The ranges the corpus is drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusConfig:
    """Ranges of the generator; pairs are (least, most), probabilities lie in 0 .. 1.

    Defaults are those of the published corpus, but for four things, each for telemetry:

    * ``telemetry``: share of variates that come from `streamad.training.synthetic.base_series`
      (states that switch, counts, bursts, drifting levels) instead of trend + season + noise;
    * ``long_periods``: share of season atoms whose period is drawn up to a third of the length
      (published: 120 samples at most), since a day at one point in five minutes has 288;
    * ``extreme``: share of local anomalies with up to five times the published amplitude;
    * ``edge_gain``: effects along an edge have a least size, or labels of descendants would mark
      what cannot be seen.

    length : samples per series; variates : of a multivariate series
    anomalous : share of series with anomalies; seasonal : share of these with seasonal ones
    local_window, seasonal_window : samples an anomaly lasts
    amplitude : of local anomalies, in scales of the series
    stays : share of levels that stay which are labelled to the end of the series, as all published
        ones are; others are the new normal (of the clean twin, too) from the end of the drawn
        window on
    visible : least root mean square of a change, and edge of a descendant's label, in scales
    """

    length: tuple[int, int] = (100, 1000)
    variates: tuple[int, int] = (2, 8)
    anomalous: float = 0.7
    seasonal: float = 0.4
    local_window: tuple[int, int] = (5, 80)
    seasonal_window: tuple[int, int] = (8, 80)
    amplitude: tuple[float, float] = (0.8, 3.0)
    extreme: float = 0.15
    telemetry: float = 0.3
    long_periods: float = 0.25
    endogenous_local: float = 0.5
    endogenous_seasonal: float = 0.25
    edge_probability: float = 0.12
    edge_gain: tuple[float, float] = (0.4, 0.35)
    max_lag: int = 12
    stays: float = 1.0
    visible: float = 0.15


TELEMETRY: Final = CorpusConfig(
    local_window=(2, 320), seasonal_window=(8, 200), extreme=0.35, stays=0.5
)
"""What the shipped weights are trained on: contexts of 1024 hold longer anomalies than 80."""
