"""What was counted on the wire, and the rates that follow from it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.lab.line import FRAME_HEADER_BYTES
from tests.lab.wiring import Wiring


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one point of the monotonic clock; `bytes` are those of whole Ethernet frames."""

    at: float
    bytes: int
    packets: int


@dataclass(frozen=True, slots=True)
class Traffic:
    """Both directions of a host or a line; up is away from the hosts."""

    up: tuple[Sample, ...]
    down: tuple[Sample, ...]


def in_ip_bytes(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The same counted as IP packets: without the 14 bytes of each frame's Ethernet header."""
    return tuple(
        replace(sample, bytes=sample.bytes - FRAME_HEADER_BYTES * sample.packets) for sample in samples
    )


def between(samples: Sequence[Sample], start_at: float, end_at: float) -> tuple[Sample, ...]:
    """Those taken from `start_at` to `end_at`."""
    return tuple(sample for sample in samples if start_at <= sample.at <= end_at)


def total_bytes(samples: Sequence[Sample]) -> int:
    """Bytes from the first sample to the last."""
    return samples[-1].bytes - samples[0].bytes


def mean_rate(samples: Sequence[Sample]) -> float:
    """Bytes per second from the first sample to the last. Raises ValueError for fewer than two."""
    if len(samples) < 2:
        raise ValueError("a rate needs two samples")
    return total_bytes(samples) / (samples[-1].at - samples[0].at)


def worst_window(samples: Sequence[Sample], seconds: float) -> float:
    """The highest rate, in bytes per second, of any window of that length inside the recording.

    Between two samples bytes are taken to flow evenly. Then the highest window starts or ends at a
    sample, so that all there are to try are tried. Raises ValueError if the recording is shorter.
    """
    times, totals = [sample.at for sample in samples], [sample.bytes for sample in samples]
    if len(times) < 2 or times[-1] - times[0] < seconds or seconds <= 0:
        raise ValueError(f"the recording has no window of {seconds} seconds")
    starts = [times[0], *(at for at in times if at + seconds <= times[-1])]
    starts += (at - seconds for at in times if at - seconds >= times[0])
    return max(bytes_at(times, totals, at + seconds) - bytes_at(times, totals, at) for at in starts) / seconds


def bytes_at(times: Sequence[float], totals: Sequence[int], at: float) -> float:
    """How many had passed at a moment of the recording, if they flowed evenly between two samples."""
    place = min(max(bisect_right(times, at), 1), len(times) - 1)
    begin, end = times[place - 1], times[place]
    share = (at - begin) / (end - begin)
    return totals[place - 1] + min(max(share, 0.0), 1.0) * (totals[place] - totals[place - 1])


@dataclass(slots=True)
class Recording:
    """What the sampler wrote, made by `Lab.record`; it stays when the laboratory is gone."""

    path: Path
    wiring: Wiring
    rows: list[list[str]] = field(default_factory=list)

    def refresh(self) -> None:
        """Reads what there is so far. `record` does it when it is left."""
        # The last line may be half written while the sampler runs.
        self.rows = [line.split() for line in self.path.read_text().split("\n")[:-1]]

    def host(self, name: str) -> Traffic:
        """At the modem's port of one host: all it sent, even what the uplink then dropped."""
        return self._traffic(self.wiring.hosts[name].port)

    def line(self, name: str) -> Traffic:
        """On the line, of all its hosts: up behind the uplink's shaper, down behind the downlink's."""
        return self._traffic(f"s{list(self.wiring.lines).index(name) + 1}")

    def _traffic(self, device: str) -> Traffic:
        return Traffic(up=self._samples(device, 1), down=self._samples(device, 3))

    def _samples(self, device: str, column: int) -> tuple[Sample, ...]:
        """Of bytes in that column after the device's name, and packets in the next."""
        places = ((row, row.index(device) + column) for row in self.rows)
        return tuple(Sample(float(row[0]), int(row[at]), int(row[at + 1])) for row, at in places)
