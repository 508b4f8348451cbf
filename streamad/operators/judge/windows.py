"""Closed windows become scores, tail probabilities, episodes and findings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.detectors.contract import ItemDetector
from streamad.modalities import Modality
from streamad.operators.call import Call
from streamad.operators.findings import FindingMaker
from streamad.operators.judge.looks import Looks
from streamad.operators.judge.rounds import Round, rounds_of
from streamad.operators.judge.telling import Telling
from streamad.operators.judge.trial import Trial
from streamad.operators.kernels import blind_runs, numbered
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_EPISODE,
    FLAG_ERROR,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    ScoreBatch,
)
from streamad.windows.signals import WindowBlock

BLIND_SPANS = 2
"""An open episode ends once so many windows' lengths of a key were incomplete. A hole leaves one
length of incomplete windows behind it, after which they are judged again."""
BLIND = "not watched: most of its samples are missing (series.gaps)"


class WindowJudge:
    """Score the windows of a block, a round at a time where the detector learns as it goes."""

    def __init__(
        self,
        config: PipelineConfig,
        detector: ItemDetector[Any],
        make: FindingMaker,
        modality: Modality,
    ) -> None:
        self._detector, self._make, self._modality = detector, make, modality
        self._stride, self._info = config.windows.stride, detector.info
        self._looks = Looks(config.scoring, detector, modality)
        self._telling = Telling(detector, make, modality, self._looks)
        self.trial: Trial | None = None

    def judge(self, call: Call, block: WindowBlock, offsets: NDArray[np.int64]) -> None:
        """Judge a block; ``offsets`` ``(n,)`` are those of the rows that closed its windows."""
        n = len(block)
        ordinal = numbered(block.codes, call.state.flags["ordinal"])
        log = ScoreBatch(
            keys=call.state.keys.decode(block.codes),
            end_ms=block.end_ms.copy(),
            ordinal=ordinal,
            score=np.full(n, np.nan, np.float32),
            p_value=np.full(n, np.nan, np.float32),
            level=np.full(n, np.nan, np.float32),
            newest=np.full(n, np.nan, np.float32),
            newest_p=np.full(n, np.nan, np.float32),
            newest_level=np.full(n, np.nan, np.float32),
            severity=np.full(n, np.nan, np.float32),
            flags=np.zeros(n, np.uint8),
            certainty=np.full(n, np.nan, np.float32) if self._info.certain else None,
        )
        if call.recorded is not None:
            logged = call.recorded.lookup(log.keys, log.end_ms, ordinal)
            log.score[:], log.newest[:] = logged[:, 0], logged[:, 1]
        ends, tells = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        limit = BLIND_SPANS * max(self._detector.size // self._stride, 1)
        blind_runs(block.codes, block.incomplete, call.state.flags["blind"], limit, ends, tells)
        call.out.blind += [call.key(int(code)) for code in block.codes[tells]]
        call.out.counts["blind"] += int(tells.sum())
        block = self._looks.prepared(block)
        seen = self._looks.observe(call, block)
        rounds = rounds_of(block, ordinal, ends, state=call.state, detector=self._detector)
        for part in rounds:
            part.seen = seen
            self._judge_round(call, part, log, offsets)
            if self.trial is not None and self.trial.result is None and part.ready.any():
                ready = np.flatnonzero(part.ready)
                self.trial.run(part.values[ready], call.state.memory, part.codes[ready])
            self._abandon(call, part, ends)
        call.out.scores.append(log)
        call.out.counts["windows"] += n
        call.out.counts["incomplete"] += int(block.incomplete.sum())
        left_out = self._modality.left_out(block.values)
        if left_out is not None and left_out.any():
            call.out.counts["cut"] += int((left_out > 0).sum())
            call.out.counts["left_out"] += int(left_out.sum())

    def _abandon(self, call: Call, part: Round, ends: NDArray[np.bool_]) -> None:
        """End episodes of keys that were blind for long: nothing else would end their alerts."""
        for place in np.flatnonzero(ends[part.rows]).tolist():
            codes = part.codes[place : place + 1]
            if not call.state.episodes.is_open(codes)[0]:
                continue
            code, end_ms = int(codes[0]), int(part.end_ms[place])
            until_ms = int(call.state.flags["event_ms"][code, 1])
            self._make.end(call, code, at_ms=end_ms, until_ms=until_ms, reason=BLIND)
            call.state.episodes.abandon(codes)

    def _judge_round(
        self, call: Call, part: Round, log: ScoreBatch, offsets: NDArray[np.int64]
    ) -> None:
        looks = np.stack([log.score[part.rows], log.newest[part.rows]], axis=1)
        looks = looks[:, : self._info.n_looks]
        looks[~part.ready] = np.nan
        final = ~np.isnan(looks).any(axis=1)
        self._telling.failures(call, part, self._looks.fill(call, part, looks, log.certainty))
        failed = np.isnan(looks).any(axis=1)
        part.flags[part.ready & failed] |= FLAG_ERROR
        part.ready &= ~failed
        looks = self._modality.add_up(call.state.windows, part.codes, part.end_ms, looks)
        pick = np.flatnonzero(part.ready)
        suppressed = self._looks.suppressed(call, part, pick, looks[pick])
        verdict = call.state.episodes.judge(
            part.codes[pick],
            looks[pick],
            part.start_ms[pick],
            part.end_ms[pick],
            suppressed,
            final=final[pick],
            still=part.still[pick],
            sudden=self._modality.sudden(part.values[pick]),
            message=offsets[part.rows[pick]],
        )
        part.flags[pick[verdict.inside]] |= FLAG_EPISODE
        part.flags[pick[verdict.candidate]] |= FLAG_CANDIDATE
        part.flags[pick[verdict.withheld]] |= FLAG_SUPPRESSED
        rows = part.rows[pick]
        log.score[part.rows] = np.nan
        log.newest[part.rows] = np.nan
        log.score[rows], log.p_value[rows], log.level[rows] = (
            verdict.score, verdict.p_value, verdict.level,
        )  # fmt: skip
        log.severity[rows] = verdict.severity
        if looks.shape[1] > 1:
            log.newest[rows], log.newest_p[rows], log.newest_level[rows] = (
                looks[pick, 1], verdict.newest_p, verdict.newest_level,
            )  # fmt: skip
        log.flags[part.rows] = part.flags
        self._telling.episodes(call, part, pick, verdict, offsets)
        if call.state.memory is not None:
            learnable = part.ready | ((part.flags & FLAG_WARMING) > 0)
            held_back = FLAG_EPISODE | FLAG_CANDIDATE | FLAG_SUPPRESSED
            if verdict.adopted.any():
                self._detector.adopt(call.state.memory, part.codes[pick[verdict.adopted]])
            self._detector.learn(
                call.state.memory,
                part.values,
                slots=part.codes,
                admit=learnable & ((part.flags & held_back) == 0),
                stride=self._stride,
            )
