"""Any film in, one fragmented MP4 out: the whole of what the child does to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from edge.media.film import Limits, Prepared
from edge.media.lanes import BROKEN, AudioLane, CopyLane, Lane, VideoLane
from edge.media.layout import read_layout
from edge.media.probe import Film, open_film
from edge.media.segments import describe_film
from shared.core.errors import Reason, Refused

Report = Callable[[str, float], None]  # stage, share done from 0 to 1

LONGEST_COPIED_MS = 20_000  # a film with rarer key frames is transcoded: seeks would crawl
_MIN_SHARE = 0.9  # of the declared playing time that must be there
_GRACE_SECONDS = 2.0
_HELD_PACKETS = 4096  # of sound, while waiting for the first picture
_REPORT_STEP = 64  # packets between two progress reports

# Sizes are in microseconds. Cuts fall on key frames; the maximum bounds memory where those are
# rare or the picture ends before the sound, the minimum keeps all-intra films from having one
# fragment per frame. The header waits for the first fragment: ADTS sound has none of its own.
_MUX_OPTIONS = {
    "movflags": "frag_keyframe+delay_moov+default_base_moof+skip_trailer",
    "min_frag_duration": "500000",
    "frag_duration": "10000000",
    "use_editlist": "0",
    "avoid_negative_ts": "make_zero",
    "fflags": "+bitexact",
}
_SOUND_ONLY = {"frag_duration": "2000000"}  # every packet of sound is a key frame


def prepare_film(source: Path, target: Path, limits: Limits, report: Report) -> Prepared:
    """Write `source` to `target` as fragmented MP4 and describe it. Raises Refused, OSError."""
    report("probing", 0.0)
    prepared, copied = _write(source, target, limits, report, may_copy=True)
    if copied and prepared.width and max(ms for _, ms in prepared.segments) > LONGEST_COPIED_MS:
        prepared, _ = _write(source, target, limits, report, may_copy=False)
    return prepared


def _write(
    source: Path, target: Path, limits: Limits, report: Report, may_copy: bool
) -> tuple[Prepared, bool]:
    with source.open("rb") as file:
        film = open_film(file, limits)
        with film.container:
            copied = may_copy and film.can_copy_video
            with target.open("wb") as written:
                _convert(film, copied, written, limits, report)
    report("checking", 0.0)
    prepared = check_file(target)
    _check_length(prepared.duration_ms / 1000, limits)
    declared = film.declared_seconds
    if declared is not None and prepared.duration_ms / 1000 < _MIN_SHARE * declared - _GRACE_SECONDS:
        raise Refused(
            Reason.NOT_A_FILM,
            f"it is cut short: {prepared.duration_ms / 1000:.0f} s of {declared:.0f} s are there",
        )
    return prepared, copied


def check_file(path: Path) -> Prepared:
    """Describe a prepared file from its bytes alone. Raises Refused, ProtocolError, OSError."""
    with path.open("rb") as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        return describe_film(read_layout(read, path.stat().st_size))


def _convert(film: Film, copied: bool, written: BinaryIO, limits: Limits, report: Report) -> None:
    stage = "copying" if copied or film.video is None and film.can_copy_audio else "transcoding"
    length = film.length_seconds or 0.0
    first: float | None = None
    options = _MUX_OPTIONS if film.video is not None else _MUX_OPTIONS | _SOUND_ONLY
    with av.open(written, "w", format="mp4", container_options=options) as out:
        lanes = _lanes(film, copied, out, limits)
        held: list[Packet[Stream]] = []
        for count, packet in enumerate(_from_first_key(film, copied)):
            at = _seconds(packet)
            first = at if first is None else first
            if at is not None and first is not None and not film.restarts:
                _check_length(at - first, limits)
            if count % _REPORT_STEP == 0 and length and at is not None and first is not None:
                report(stage, min(1.0, max(0.0, (at - first) / length)))
            held += lanes[packet.stream.index].take(packet)
            # The first packet makes the header, for which a picture's rotation must be known.
            if len(held) > _HELD_PACKETS or all(lane.opened for lane in lanes.values()):
                out.mux(held)
                held.clear()
        for lane in lanes.values():
            held += lane.finish()
        out.mux(held)


def _lanes(film: Film, copied: bool, out: OutputContainer, limits: Limits) -> dict[int, Lane]:
    """A lane for each chosen stream, by its index in the source; the picture comes first."""
    lanes: dict[int, Lane] = {}
    if film.video is not None:
        lanes[film.video.index] = (
            CopyLane(out, film.video, film.restarts)
            if copied
            else VideoLane(out, film.video, film.restarts, limits)
        )
    if film.audio is not None:
        lanes[film.audio.index] = (
            CopyLane(out, film.audio, film.restarts)
            if film.can_copy_audio
            else AudioLane(out, film.audio, film.restarts)
        )
    return lanes


def _packets(film: Film) -> Iterator[Packet[Stream]]:
    """Packets of the chosen streams, up to the end or to where the file is too broken to go on."""
    chosen: list[Stream] = [stream for stream in (film.video, film.audio) if stream is not None]
    packets = film.container.demux(*chosen)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, *BROKEN):
            return
        if packet.size:
            yield packet


def _from_first_key(film: Film, copied: bool) -> Iterator[Packet[Stream]]:
    """The packets from the first key frame on, where the picture is copied.

    A recording may start in mid-picture. Sound that came before its first key frame goes too,
    but when the picture is whole, sound may start before it.
    """
    packets = _packets(film)
    if film.video is None or not copied:
        yield from packets
        return
    held: list[Packet[Stream]] = []
    dropped = False
    for packet in packets:
        if packet.stream.index != film.video.index:
            held.append(packet)
            if len(held) > _HELD_PACKETS:
                raise Refused(Reason.NOT_A_FILM, "its picture does not start within its first minute")
        elif not packet.is_keyframe:
            dropped = True
        else:
            start = _seconds(packet)
            yield from (p for p in held if not dropped or (_seconds(p) or 0.0) >= (start or 0.0))
            yield packet
            break
    else:
        raise Refused(Reason.NOT_A_FILM, "its picture has no key frame")
    yield from packets


def _seconds(packet: Packet[Stream]) -> float | None:
    at = packet.dts if packet.dts is not None else packet.pts
    return None if at is None else float(at * packet.time_base)


def _check_length(at: float, limits: Limits) -> None:
    if at > limits.film_seconds:
        raise Refused(Reason.TOO_LARGE, f"it plays for over {limits.film_seconds} s, which is the limit")
