"""How windows are judged: in rounds, by what a detector says of them, and what is told of it."""

from streamad.operators.judge.trial import Trial
from streamad.operators.judge.windows import WindowJudge

__all__ = ["Trial", "WindowJudge"]
