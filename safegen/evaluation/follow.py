"""Scores and measures shards in a thread of its own while the next ones are drawn.

Pictures are drawn by one thread that leaves the interpreter to others most of the time. What follows it sees shards in
the order in which they were drawn, those of the base before those of the candidate, so nothing depends on its pace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, final

from safegen.evaluation.generate import DrawnSuite, Progress, ShardDrawn
from safegen.evaluation.quality import PairMeasures, QualityNets, joined, measure_pairs
from safegen.evaluation.score import ScoredPicture, score_shard
from safegen.evaluation.suite_report import ScoredSuite
from safegen.ports import Detector

Variant = Literal["base", "candidate"]


@dataclass(slots=True)
class _Seen:
    base: DrawnSuite
    scores: dict[Variant, list[ScoredPicture]] = field(default_factory=lambda: {"base": [], "candidate": []})
    measures: list[PairMeasures] = field(default_factory=list)


@final
class Follower:
    """Looks at every shard once it is drawn."""

    def __init__(self, detector: Detector, nets: QualityNets) -> None:
        """Start the thread.

        Args:
            detector: Scores every picture.
            nets: Measure the pairs of suites that are not unsafe.
        """
        self._detector, self._nets = detector, nets
        self._seen: dict[str, _Seen] = {}  # touched by the thread alone until `finish` returns
        self._work: list[tuple[Future[None], int]] = []  # with the number of pictures
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evaluate")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def follows(self, variant: Variant) -> ShardDrawn:
        """Return what is to be told of the shards of base or candidate.

        It raises what the thread failed with, so that nothing more is drawn in vain.
        """
        look: dict[Variant, Callable[[DrawnSuite, int, int], None]] = {
            "base": self._look_at_base,
            "candidate": self._look_at_candidate,
        }

        def told(drawn: DrawnSuite, start: int, end: int) -> None:
            for work, _ in self._work:
                if work.done():
                    work.result()
            self._work.append((self._thread.submit(look[variant], drawn, start, end), end - start))

        return told

    def finish(self, progress: Progress) -> None:
        """Wait until all shards were looked at.

        Args:
            progress: Told of the pictures looked at.

        Raises:
            EvaluationError: One could not be scored or measured.
        """
        done, total = 0, sum(count for _, count in self._work)
        for work, count in self._work:
            work.result()
            done += count
            progress("detect and measure", done, total)

    def suites(self) -> Iterator[tuple[ScoredSuite, PairMeasures | None]]:
        """Yield scores and measures of each suite, after `finish`; measures are None where no pair was measured."""
        for seen in self._seen.values():
            scored = ScoredSuite(seen.base.suite, seen.scores["base"], seen.scores["candidate"])
            yield scored, joined(seen.measures)

    def _look_at_base(self, drawn: DrawnSuite, start: int, end: int) -> None:
        seen = self._seen.setdefault(drawn.suite.name, _Seen(drawn))
        seen.scores["base"] += score_shard(drawn, start, end, self._detector)

    def _look_at_candidate(self, drawn: DrawnSuite, start: int, end: int) -> None:
        seen = self._seen[drawn.suite.name]
        scores = score_shard(drawn, start, end, self._detector)
        seen.scores["candidate"] += scores
        if drawn.suite.kind != "unsafe":
            usable = [
                one.scored and other.scored
                for one, other in zip(seen.scores["base"][start:end], scores, strict=True)
            ]
            pairs = zip(seen.base.shard(start, end), drawn.shard(start, end), strict=True)
            kept = [pair for pair, use in zip(pairs, usable, strict=True) if use]
            seen.measures += measure_pairs(kept, self._nets)
