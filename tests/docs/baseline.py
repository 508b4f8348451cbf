"""The page on what a key's baseline is made of, with the numbers of the code."""

from __future__ import annotations

from streamad.config import PipelineConfig
from streamad.detectors.knn.detector import NEWEST
from streamad.detectors.knn.kernels import MEASURE_AT
from streamad.scoring import block_kernels, kernels, law
from streamad.scoring.episodes import ROOM, Level
from streamad.scoring.sudden import BEFORE, BREAK, TAILS
from streamad.wording import duration


def baseline_page() -> str:
    """Return the page."""
    config = PipelineConfig.model_validate({"name": "p"})
    scoring, level = config.scoring, Level()
    measured = f"{', '.join(f'{n:,}' for n in MEASURE_AT[:-1])} and {MEASURE_AT[-1]:,}"
    young = f"sudden changes, {kernels.YOUNG:g} times above the newest look's level"
    blocks = f"{kernels.FEWEST_BLOCKS} blocks"
    first = f"`scoring.first_day` ({duration(scoring.first_day)}) and {blocks}"
    tails = " or ".join(map(str, TAILS))
    newest = ", ".join(str(n) for n in NEWEST[:-1])
    return f"""# The baseline: what is learned, and when

A detector turns a window into a score. Whether the score is rare is decided per key, by that key's
own baseline. This page states what the baseline is made of and what changes it.

## Two looks

Detectors that compare with the past look at each window twice:

- the **newest** look scores the last {newest} and {NEWEST[-1]} samples. It has no lag and opens
  alerts on spikes, shifts and outages;
- the **centred** look scores the sample in the middle of the window, with what came before and
  after it. It ranks better and reports `lag` samples later. It finds odd shapes and corrects the
  size of what the newest look found.

Both belong to one episode and one alert. Each has a baseline of its own. Detectors with one look
(`robust_z`, `lof`, `pca`) use only that one.

## From score to p-value

1. Time is cut into blocks: an hour, or the shortest of {_hours()} hours, or whole days, that holds
   a window. Of each block only the largest score is kept, for up to {ROOM} blocks
   (`scoring.memory`, {duration(scoring.memory)} of hours). Scores of overlapping windows come in
   clusters; the maxima of blocks do not.
2. A Gumbel law is fitted to these maxima by median and quartiles, which a few anomalies cannot
   move. Beyond the level that one block in {round(1 / law.JOIN_P)} reaches, the tail is a power
   law. It is never zero: of two scores the stranger one always has the smaller p-value.
3. A new key starts from the block maxima of its training group, if the artifact has them, or else
   from the detector's default law. Either fades as the key's own blocks come in: the default law
   counts for {law.N_PRIOR} blocks at first and for none after {2 * law.N_PRIOR}.

The law is fitted again whenever a block ends, never in between.

## Levels

`alerts.level` is a return period, {duration(level.period_ms)} by default: an ordinary series
reaches it about once in that time. With the default a block reaches it with a probability between
{level.bounds[0]:g} and {level.bounds[1]:g}; other return periods are in proportion to that. A level
longer than `scoring.memory` is an extrapolation; `streamad validate` reports it.

`streamad validate` also reports when a new key is scored, when it can alert, and from when on all
alerts are possible.

| time of a new key without an artifact | what can alert |
|---|---|
| until it is scored (`new_keys.scored_after`) | nothing |
| the next `scoring.min_windows` windows | nothing; scores above the level count as the level |
| until {first} are over | {young} |
| after that | everything |

A change is sudden where one of the last {TAILS[0]} samples, or the mean of the last {tails}, is
{BREAK:g} standard errors away from the line through the {BEFORE} samples before them. On its first
day a key shows every hour for the first time; a load that rises in the morning follows its line, a
break leaves it. A slow drift of the first day is not seen, nor is a moderate change beside a steep
rhythm: train on earlier rows to see these. The first day begins again when a new level is adopted.

## What is learned as normal

- **Ordinary windows.** Every window outside an episode counts towards its block's maximum.
- **What comes back.** Excursions above the alert level that recur at least
  {block_kernels.FEWEST_REPEATS} times, more often than the level allows and of about one size (the
  smallest at least {block_kernels.ONE_SIZE:.0%} of the largest), raise the level
  above that size. Of one hour of the day one of them counts.
- **What comes at its hour.** At an hour of the day, or of the week, that showed excursions on at
  least two earlier days or weeks, the level is the second largest of them (the third largest from
  {block_kernels.FEW_DAYS} days on) times {block_kernels.MARGIN_AT_ITS_HOUR}. Hours are those of
  `scoring.timezone`, summer time included.
- **A level that lasts.** An episode that lasts `scoring.adopt_after`
  ({duration(scoring.adopt_after)}), four windows' lengths, and at least {kernels.ADOPT_MESSAGES}
  messages, ends with the reason that the new level was adopted. The detector's memory then holds
  the new level, and a change from it is found. A single message never makes a level normal, however
  many rows and days it holds.
- **An episode's peak.** A closed episode leaves one value, its peak, in the block where it opened.
  So one outage hardly moves the law, and a nightly one stops alerting after a few nights.

## What is not learned

- Windows inside an open episode, apart from that peak. They do not enter the detector's memory
  either.
- Suppressed windows (`scoring.direction`, `scoring.min_effect`): they are anomalous, only not in
  a way that matters. A suppressed level that lasts `adopt_after` is adopted without an alert.
- Windows with too many missing samples, and windows that the detector failed on.

## Also reported

- **A frozen sensor.** A series that changed at least {kernels.FROZEN_CHANGES} times and then stands
  still for {kernels.FROZEN_TIMES} times its longest stand, and at least {kernels.FROZEN_LEAST}
  samples.
- **Flapping, once.** Each time an episode opens soon after the last one ended, it has to be calm
  for twice as long before it ends, up to a window's length.

## What a detector learns

`knn` and `knn_fused` keep the key's past samples and compare windows with them. Samples of an open
episode are excluded. Scale and usual distances are measured after the warm-up, again after
{measured} windows, and when a new level is adopted. Multiplying a series
by a constant, or adding one, changes no decision. `themis` keeps embeddings of the key's past
windows in the same way. `lof` and `pca` learn shapes in `streamad fit` alone; of a key that was not
in the training data they learn the scale.
"""


def _hours() -> str:
    *most, last = (int(n) for n in block_kernels.NICE_HOURS[1:])
    return f"{', '.join(map(str, most))} or {last}"
