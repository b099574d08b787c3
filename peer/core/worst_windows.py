"""The fullest second and ten seconds, as shares of the line, from samples of what was sent in all."""

from __future__ import annotations

from collections import deque

TEN = 10.0
JUMP_SECONDS = 2.0  # between samples; longer, and the time between says nothing of a second


class WorstWindows:
    """Fed ten times a second; windows begin and end with samples, and are at least as long as they say."""

    def __init__(self) -> None:
        self.second = 0.0
        self.ten_seconds = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, at: float, sent_bytes: int, line_rate: float) -> None:
        """`sent_bytes` in all until `at`, on a line that carries `line_rate`."""
        if self._samples and not 0 < at - self._samples[-1][0] <= JUMP_SECONDS:
            self._samples.clear()
        self._samples.append((at, sent_bytes))
        while len(self._samples) > 1 and self._samples[1][0] <= at - TEN:
            self._samples.popleft()
        self.second = max(self.second, self._share(1.0, line_rate))
        self.ten_seconds = max(self.ten_seconds, self._share(TEN, line_rate))

    def take(self) -> tuple[float, float]:
        """Both, and begin anew."""
        worst = self.second, self.ten_seconds
        self.second = self.ten_seconds = 0.0
        return worst

    def give_back(self, second: float, ten_seconds: float) -> None:
        """What was taken could not be kept: it counts again."""
        self.second = max(self.second, second)
        self.ten_seconds = max(self.ten_seconds, ten_seconds)

    def _share(self, seconds: float, line_rate: float) -> float:
        at, sent = self._samples[-1]
        begin = next((one for one in reversed(self._samples) if one[0] <= at - seconds), None)
        if begin is None or line_rate <= 0:
            return 0.0
        return (sent - begin[1]) / (at - begin[0]) / line_rate
