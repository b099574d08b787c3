"""Getting one rendition: its sources, what is asked of whom, and when to change one's mind.

A piece is asked from one source at a time and arrives leaf by leaf from its front, so what is
missing of it is always its tail: a source that fails or dawdles is cancelled and the tail is
asked elsewhere (the *rescue*). What was checked is never fetched twice.
"""

from __future__ import annotations

from peer.core import picker, rescue
from peer.core.chunks import Chunk, Chunks
from peer.core.company import Company
from peer.core.rescue import RESCUE_MARGIN_SECONDS
from peer.core.source import Source
from peer.core.sources import Sources
from peer.core.wishes import PATIENCE_SECONDS, Wishes
from shared.core.actions import Action, AskManifest
from shared.core.bitfield import Bitfield
from shared.core.dice import Dice
from shared.core.errors import Reason
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.manifest import Manifest
from shared.core.messages import Redirect

LOCATE_EVERY_SECONDS = 15.0  # new peers appear, tickets run out
LOCATE_AGAIN_SECONDS = 2.0  # when there is nobody to ask
JOIN_SECONDS = 4.0  # who has not let us in by then cannot be reached: others may be
TICK_SECONDS = 0.25
LEAVE_AFTER_SECONDS = 300.0  # a viewer may come back from the kitchen
FOREVER = float("inf")


class Fetch:
    """One rendition being fetched, in the company of the peer's others."""

    def __init__(self, infohash: InfoHash, rng: Dice, company: Company) -> None:
        self.infohash = infohash
        self.wishes: Wishes | None = None  # until the manifest is here
        self.locate_at = FOREVER
        self.edge_bytes = 0
        self.peer_bytes = 0
        self.wasted_bytes = 0
        self.refused: Reason | None = None
        self._rng = rng
        self._company = company
        self._actions = company.actions
        self._manifest_from: NodeId | None = None
        self._pause_seconds = LOCATE_AGAIN_SECONDS
        self._tick_at = FOREVER
        self._leave_at = FOREVER
        self.sources = Sources(infohash, company)
        self._chunks = Chunks(infohash, company, self.sources.by_node)
        self._locate_by(0.0)

    # -- the manifest ---------------------------------------------------------------------------

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, once a source has given it."""
        return self.wishes.manifest if self.wishes else None

    @property
    def known(self) -> Wishes:
        """What is wanted, once the manifest is here; not to be asked for before."""
        assert self.wishes is not None, "the manifest is not here yet"
        return self.wishes

    def learn(self, manifest: Manifest, held: Bitfield, now: float) -> None:
        """The manifest is here, and `held` of its pieces (shared with the one who announces)."""
        self.wishes = Wishes(manifest, held, self._rng)
        self._manifest_from = None
        for node in self.sources.learn_total(manifest.piece_count):
            self.ban(node, now)
        self.schedule(now)

    def manifest_failed(self, node: NodeId, reason: Reason, now: float) -> None:
        """A source could not give the manifest, or gave a wrong one: then it is banned."""
        self._manifest_from = None
        if reason in (Reason.BAD_DATA, Reason.MALFORMED, Reason.TOO_LARGE):
            self.ban(node, now)
        else:
            self.drop(node, now)
        self._ask_manifest()

    def _ask_manifest(self) -> None:
        signer = self.sources.signer
        if self.manifest is not None or self._manifest_from is not None or signer is None:
            return
        ready = [s for s in self.sources.all if s.joined]
        if ready:
            first = min(ready, key=lambda s: not s.is_edge)
            self._manifest_from = first.node
            self._actions.append(AskManifest(first.node, self.infohash, signer))

    # -- sources ----------------------------------------------------------------------------------

    def redirected(self, message: Redirect, now: float) -> None:
        """The tracker named sources."""
        self.refused = None
        found = self.sources.redirected(message, now)
        if self.sources.anybody_joined:  # who starts with us is not known yet: soon, then less often
            self._pause_seconds = min(LOCATE_EVERY_SECONDS, 2 * self._pause_seconds)
        else:
            is_crowd = not any(one.kind is not Kind.EDGE for one in message.sources)
            self._pause_seconds = JOIN_SECONDS if found and not is_crowd else LOCATE_AGAIN_SECONDS
        self.locate_at = FOREVER
        self._locate_by(now + self._pause_seconds)
        self.schedule(now)

    def located(self, now: float) -> None:
        """The tracker is being asked: if it does not answer, it is asked again."""
        self.locate_at = now + LOCATE_EVERY_SECONDS

    def refuse(self, reason: Reason) -> None:
        """The tracker refused. What it does not know, it is asked again only when a reader comes."""
        self.refused = reason
        if reason is Reason.UNKNOWN_TITLE:
            self.locate_at = FOREVER

    def look_again(self, now: float) -> None:
        """Somebody wants this title: what the tracker refused before it may know now."""
        self.refused = None
        self._locate_by(now)

    def _locate_by(self, at: float) -> None:
        self.locate_at = min(self.locate_at, at)
        self._company.awake[self.infohash] = None

    def connected(self, node: NodeId) -> None:
        """A connection came up."""
        self.sources.connected(node)

    def have(self, node: NodeId, bitfield: bytes, now: float) -> None:
        """A source let us in. Raises ProtocolError if its bitfield is none."""
        self.sources.have(node, bitfield, self.manifest.piece_count if self.manifest else None)
        self._ask_manifest()
        self.schedule(now)

    def join_refused(self, request: int, node: NodeId, reason: Reason, now: float) -> bool:
        """Whether this refused a Join of ours; then the source is left alone."""
        if not self.sources.is_join(request, node):
            return False
        if reason in (Reason.TICKET_EXPIRED, Reason.TICKET_INVALID):
            self._locate_by(now + LOCATE_AGAIN_SECONDS)
        self.drop(node, now)
        return True

    def gained(self, node: NodeId, pieces: tuple[int, ...], now: float) -> None:
        """A source has more. Raises ProtocolError."""
        self.sources.note(node, pieces)
        self.schedule(now)

    def gave_up(self, node: NodeId, pieces: tuple[int, ...]) -> None:
        """A source has less."""
        self.sources.note(node, pieces, gone=True)

    def drop(self, node: NodeId, now: float) -> None:
        """A source is gone, or refused us."""
        self._chunks.give_up_all_of(node)
        if not self.sources.remove(node):
            return
        if self._manifest_from == node:
            self._manifest_from = None
            self._ask_manifest()
        if self.wanted(now):
            self._locate_by(now + LOCATE_AGAIN_SECONDS)
            self.schedule(now)

    def ban(self, node: NodeId, now: float) -> None:
        """It sent bytes that do not match: never again."""
        self.sources.ban(node)
        self.drop(node, now)

    # -- what is wanted ---------------------------------------------------------------------------

    def wanted(self, now: float) -> bool:
        """Whether anything is to be fetched at present; at first the manifest is."""
        return self.wishes is None or self.wishes.any(now)

    def read(self, offset: int, now: float) -> bool:
        """The player wants the byte at `offset`; whether its piece is here already."""
        self.known.playhead.read(offset, now)
        self._wake(now)
        return self.known.here(offset // self.known.manifest.piece_length)

    def wait(self, piece: int, now: float, patience: float = PATIENCE_SECONDS) -> None:
        """A reader waits for a piece: until `stop_waiting` it comes before everything else."""
        self.known.wait(piece, now, patience)
        self._wake(now)

    def stop_waiting(self, piece: int) -> None:
        """A reader got its piece, or gave up."""
        self.known.stop_waiting(piece)

    def download(self, wanted: bool, now: float) -> None:
        """All of it is wanted, whoever reads; or no longer."""
        self.known.download(wanted)
        self._wake(now)

    def _wake(self, now: float) -> None:
        if self.locate_at == FOREVER and self.refused is None and self.wanted(now):
            self._locate_by(now)
        self.schedule(now)

    def schedule(self, now: float) -> None:
        """Asks for whatever should be asked now. Cheap: call it after every change."""
        wishes = self.wishes
        if wishes is None or not wishes.any(now):
            self._rest(now)
            return
        self._leave_at = FOREVER
        if self._tick_at > now + TICK_SECONDS:  # else what happens all the time would put it off
            self._tick_by(now + TICK_SECONDS)
        sources = self.sources.all
        if not picker.anybody_free(sources, now):
            return
        for piece, slack in picker.spread(wishes.urgent(now), sources, wishes.luck):
            if piece not in self._chunks.busy:
                self._ask(self._choose(sources, wishes, piece, slack, now), piece, slack, now)
                if not picker.anybody_free(sources, now):
                    return
        if wishes.downloading:
            self._download(sources, wishes, now)

    def _download(self, sources: list[Source], wishes: Wishes, now: float) -> None:
        offered = picker.offered(sources, now)
        for piece in picker.rarest_first(wishes.download_order(self._chunks.busy, offered), sources):
            size = self._chunks.missing_bytes(wishes.manifest, piece)
            self._ask(picker.choose_for_download(sources, piece, size, now), piece, FOREVER, now)
            if not picker.anybody_free(sources, now):
                return

    def _choose(
        self, sources: list[Source], wishes: Wishes, piece: int, slack: float, now: float
    ) -> Source | None:
        size = self._chunks.missing_bytes(wishes.manifest, piece)
        if wishes.is_start(piece):
            return picker.choose_for_start(sources, piece, size, now)
        window = picker.edge_window(sources, piece, len(wishes.held), wishes.luck(piece))
        return picker.choose(sources, piece, size, slack, window, now)

    def _rest(self, now: float) -> None:
        """Nothing is wanted: sources are kept for a while, for whoever comes back."""
        if self.wishes is None or not self.sources.by_node:
            self._leave_at = self._tick_at = FOREVER
            return
        self._leave_at = min(self._leave_at, now + LEAVE_AFTER_SECONDS)
        self._tick_by(self._leave_at)

    def _tick_by(self, at: float) -> None:
        self._tick_at = at
        self._company.awake[self.infohash] = None

    def _ask(self, source: Source | None, piece: int, slack: float, now: float) -> None:
        if source is not None:  # else nobody can at present: looked at again at the next tick or change
            if source.is_edge and slack != FOREVER:
                start, luck = self.known.is_start(piece), self.known.luck(piece)
                slack = picker.slack_at_edge(source, slack, luck, is_start=start)
            self._chunks.ask(source, self.known.manifest, piece, slack, now)

    # -- what arrives -----------------------------------------------------------------------------

    def piece_of(self, number: int) -> int:
        """The piece a running request is for."""
        return self._chunks.running[number].piece

    def leaf_arrived(self, number: int, size: int, now: float) -> bool:
        """The next leaf of a request was checked; whether it is still wanted."""
        source = self._chunks.arrived(number, size, now)
        if source is None:
            self.wasted_bytes += size
            return False
        if source.is_edge:
            self.edge_bytes += size
        else:
            self.peer_bytes += size
        return True

    def chunk_ended(self, number: int, reason: Reason, now: float) -> None:
        """A request is over: NONE if all of it arrived."""
        chunk = self._chunks.running.get(number)
        if chunk is None:
            return
        source = self.sources.by_node.get(chunk.source)
        whole = reason is Reason.NONE and chunk.arrived == chunk.leaf_count
        if source is not None and whole:
            source.chunk_arrived(now)
        self._chunks.release(number, keep_piece=whole)
        if not whole:
            self._failed(chunk, reason, now)
        self.schedule(now)

    def _failed(self, chunk: Chunk, reason: Reason, now: float) -> None:
        source = self.sources.by_node.get(chunk.source)
        if source is None:
            return
        match reason:
            case Reason.BAD_DATA:
                self.ban(chunk.source, now)
            case Reason.NOT_HELD:
                source.note((chunk.piece,), gone=True)
            case Reason.BUSY:
                source.busy_until = now + 0.5 + self._rng.random() / 2
            case Reason.TICKET_EXPIRED | Reason.TICKET_INVALID:
                source.joined = False
                self._locate_by(now)
            case Reason.CANCELLED:
                pass
            case Reason.NOT_SHARING | Reason.UNKNOWN_TITLE | Reason.NOT_ALLOWED:
                self.drop(chunk.source, now)
            case _:
                source.snub(now)

    def stored(self, piece: int, held: bool, now: float) -> None:
        """A whole piece is in the store; or only in memory, until `faded`."""
        self._chunks.stored(piece)
        if not held:
            self.known.unstored.add(piece)
            for number in [n for n, c in self._chunks.running.items() if not self.known.keeps(c.piece)]:
                self._chunks.give_up(number)  # it would push out of memory what is shown sooner
        elif self.known.held.complete:
            self.sources.leave_all()
        self.schedule(now)

    def faded(self, piece: int) -> None:
        """A piece had to go, from memory or from the disk."""
        self.known.faded(piece)

    def forget_part(self, piece: int) -> None:
        """What had arrived of an unfinished piece had to go."""
        self._chunks.forget_part(piece)

    # -- time -------------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return self._tick_at

    def handle_timer(self, now: float) -> None:
        """Looks for sources that dawdle, and for work."""
        if now < self._tick_at:
            return
        self._tick_at = FOREVER
        if now >= self._leave_at and not self.wanted(now):
            self._leave()
        self._rescue(now)
        self.schedule(now)

    def asleep(self) -> bool:
        """Whether no moment is waited for."""
        return self._tick_at == self.locate_at == FOREVER

    def _leave(self) -> None:
        for number in list(self._chunks.running):
            self._chunks.give_up(number)
        self.sources.leave_all()

    def _rescue(self, now: float) -> None:
        for number, chunk in list(self._chunks.running.items()):
            source = self.sources.by_node[chunk.source]
            silence = chunk.silence(source, now)
            if silence > rescue.silence_allowed(self.known.need(chunk.piece, now)):
                source.snub(now)
                self._chunks.give_up(number)
                continue
            if self._relieve(number, chunk, source, now):
                continue
            other = rescue.rescuer(self.sources.all, chunk, source, now)
            if other is None:
                continue
            slack, ahead = self.known.slack(chunk.piece, now), self._chunks.ahead_bytes(number)
            if rescue.too_late(chunk, ahead, source, other, slack, now):
                if silence >= RESCUE_MARGIN_SECONDS:
                    source.snub(now)
                self._chunks.give_up(number)
                self._ask(other, chunk.piece, slack, now)

    def _relieve(self, number: int, chunk: Chunk, source: Source, now: float) -> bool:
        peer = rescue.reliever(self.sources.all, chunk, source, now)
        if peer is None:
            return False
        self._chunks.give_up(number)
        self._ask(peer, chunk.piece, self.known.slack(chunk.piece, now), now)
        return True

    def next_action(self) -> Action | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None
