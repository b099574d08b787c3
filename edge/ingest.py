"""From an uploaded file to a published title: receive, check, prepare, hash, sign, register.

Each upload is one job; publishers that lose their connection find it again and are told how far
it is. Nothing is announced before every piece is in the store, and nobody is told `published`
before the tracker has the title in its database.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import trio

from edge.core.edge import Edge
from edge.core.shelf import room_of
from edge.media.child import Limits, Prepared, prepare
from edge.quarantine import Landing, Order, sweep
from shared import clock
from shared.core import manifest as manifests
from shared.core.bulk import UploadRequest
from shared.core.errors import PenstockError, Reason, Refused, RemoteError, StoreError, StoreFull
from shared.core.ids import Address, NodeId, TitleId
from shared.core.manifest import Manifest
from shared.core.merkle import layer_of_file
from shared.core.messages import Message, Refusal, Registered, Stage, Upload, UploadState
from shared.core.names import clean_name, clean_title
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES
from shared.identity import Identity
from shared.piece_store import PieceStore
from shared.serving import ByteStream, decline

log = logging.getLogger(__name__)

MAX_JOBS = 16  # uploads under way
PREPARED_AT_ONCE = 1  # a media child uses every core it gets
REGISTER_PAUSE_SECONDS = 2.0
SWEEP_SECONDS = 3600.0
# The tracker would say so again, whenever it is asked.
FINAL = frozenset({Reason.NOT_ALLOWED, Reason.MALFORMED, Reason.TOO_LARGE})
# The tracker's trouble, not the title's.
PASSING = frozenset({Reason.BUSY, Reason.NO_SPACE, Reason.INTERNAL, Reason.TIMEOUT})
# The file is not at fault and need not be uploaded again. NOT_ALLOWED is cured in a setting.
KEPT = PASSING | {Reason.NOT_ALLOWED}
MAX_STEM_BYTES = 200  # of a rendition's name: file systems take 255
MAX_DETAIL_BYTES = 400  # of a refusal

Ask = Callable[[int], Awaitable[Message | None]]


class Job:
    """One upload on its way, and the publishers who wait for it."""

    def __init__(self, upload: bytes, landing: Landing) -> None:
        self.upload = upload
        self.landing = landing
        self.stage = Stage.RECEIVING
        self.permille = 0
        self.address = ""
        self.watchers: dict[NodeId, int] = {}
        self.opened = False  # what was received before is known
        self.begun = False
        self.fresh = False  # it brought its title into the store
        self.manifest: Manifest | None = None  # of a file that became a title before

    def state(self, request: int) -> UploadState:
        """What a publisher is told."""
        received = self.landing.received_bytes
        return UploadState(request, self.upload, self.stage, received, self.permille, self.address)


class Ingest:
    """All uploads of an edge. `pump` carries out what the core decided, `ask` waits for the tracker,
    `make_room` gives up what the tracker ordered, if it must."""

    def __init__(
        self,
        core: Edge,
        identity: Identity,
        store: PieceStore,
        root: Path,
        limits: Limits,
        max_upload: int,
        tracker: Address,
        pump: Callable[[], None],
        ask: Ask,
        make_room: Callable[[int], Awaitable[None]],
    ) -> None:
        self._core = core
        self._identity = identity
        self._store = store
        self._root = root
        self._limits = limits
        self._max_upload = max_upload
        self._tracker = tracker
        self._pump = pump
        self._ask = ask
        self._make_room = make_room
        self._jobs: dict[bytes, Job] = {}
        self._titles: dict[TitleId, Manifest] = {}
        self._media = trio.CapacityLimiter(PREPARED_AT_ONCE)
        self._folders = trio.Lock()  # of the quarantine: none is swept away while it is opened
        self._filing = trio.Lock()  # two uploads may be the same title
        self.nursery: trio.Nursery

    # -- publishers -----------------------------------------------------------------------------

    def begin(self, node: NodeId, message: Upload) -> None:
        """A publisher hands in a file, or comes back for one."""
        try:
            job = self._find(node, message)
        except PenstockError as error:
            reason = error.reason if isinstance(error, RemoteError) else Reason.MALFORMED
            self._core.say(node, Refusal(message.request, reason, _detail(error)))
            self._pump()
            return
        job.watchers[node] = message.request
        if job.opened:
            self._tell(job)
            self._work_if_whole(job)

    async def _open(self, job: Job) -> None:
        """Finds what was received before; then the publishers hear of it."""
        try:
            async with self._folders:
                await trio.to_thread.run_sync(job.landing.open)
        except Refused as refusal:
            self._abandon(job, refusal.reason, refusal.detail)
        except OSError as error:
            self._abandon(job, Reason.NO_SPACE, f"the edge cannot write: {error.strerror}")
        else:
            if self._jobs.get(job.upload) is job:  # else all publishers left meanwhile
                job.opened = True
                self._tell(job)
                self._work_if_whole(job)

    def _abandon(self, job: Job, reason: Reason, detail: str) -> None:
        if self._jobs.get(job.upload) is job:
            del self._jobs[job.upload]
        for node, request in job.watchers.items():
            self._core.say(node, Refusal(request, reason, _cut(detail, MAX_DETAIL_BYTES)))
        self._pump()

    def _work_if_whole(self, job: Job) -> None:
        # Not in the publisher's own task: the work goes on when its connection breaks.
        if not job.begun and (job.manifest is not None or job.landing.whole):
            job.begun = True
            self.nursery.start_soon(self._work, job)

    def _find(self, node: NodeId, message: Upload) -> Job:
        order = Order(
            clean_name(message.name), clean_title(message.title), message.length, message.sha256.hex()
        )
        upload = order.upload_id(node)
        job = self._jobs.get(upload)
        if job is None:
            job = self._published(upload, order) or self._new(upload, order)
            self._jobs[upload] = job
            if not job.opened:
                self.nursery.start_soon(self._open, job)
        return job

    def _new(self, upload: bytes, order: Order) -> Job:
        if order.length > self._max_upload:
            raise Refused(Reason.TOO_LARGE, f"this edge takes files of up to {self._max_upload} bytes")
        if len(self._jobs) >= MAX_JOBS:
            raise Refused(Reason.BUSY, f"{MAX_JOBS} uploads are under way; come back later")
        return Job(upload, Landing(self._root, upload, order))

    def know(self, manifest: Manifest) -> None:
        """This title is whole in the store; its file need not be uploaded again."""
        self._titles[manifest.title_id] = manifest

    def _published(self, upload: bytes, order: Order) -> Job | None:
        """The job of a file that this edge made a title of before; the tracker may not know yet."""
        manifest = self._titles.get(order.title_id(self._identity.id))
        if manifest is None:
            return None
        if len(self._store.held(manifest.infohash)) < manifest.piece_count:
            return None  # the disk lost some of it: a new upload mends it
        if manifest.title != order.title:
            raise Refused(Reason.NOT_ALLOWED, f"this file is published already, as {manifest.title!r}")
        job = Job(upload, Landing(self._root, upload, order))
        job.manifest = manifest
        job.opened = True
        job.stage = Stage.REGISTERING  # there is nothing to upload
        return job

    async def receive(self, node: NodeId, stream: ByteStream, request: UploadRequest) -> None:
        """A chunk of an upload on its bulk stream. Raises RemoteError for the stream's reset."""
        job = self._jobs.get(request.upload)
        if job is None or not job.opened or node not in job.watchers:
            raise Refused(Reason.UNEXPECTED, "say Upload before its bytes")
        landing = job.landing
        try:
            async with landing.place(request.offset, request.length):
                data = await stream.receive_exactly(request.length)
                received = await landing.write(request.offset, data)
        except Refused as refusal:
            log.warning("upload of %s: %s", job.landing.order.name, refusal)
            await decline(stream, refusal.reason)
            return
        await stream.send_all(b"\0" + received.to_bytes(8, "big"))
        stream.send_eof()
        await stream.wait_acknowledged()
        self._work_if_whole(job)

    def forget(self, node: NodeId) -> None:
        """A publisher is gone; its uploads stay."""
        for upload, job in list(self._jobs.items()):
            job.watchers.pop(node, None)
            if not job.watchers and not job.begun:
                del self._jobs[upload]

    async def keep_swept(self) -> None:
        """Deletes forgotten uploads every hour; runs until cancelled."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            try:
                async with self._folders:
                    under_way = frozenset(upload.hex() for upload in self._jobs)
                    await trio.to_thread.run_sync(sweep, self._root, under_way)
            except OSError as error:
                log.warning("cannot look through %s: %s", self._root, error.strerror)

    def _tell(self, job: Job) -> None:
        for node, request in job.watchers.items():
            self._core.say(node, job.state(request))
        self._pump()

    def _enter(self, job: Job, stage: Stage, share: float = 0.0) -> None:
        permille = min(1000, int(share * 1000))
        if (stage, permille) != (job.stage, job.permille):
            job.stage, job.permille = stage, permille
            self._tell(job)

    # -- the work -------------------------------------------------------------------------------

    async def _work(self, job: Job) -> None:
        try:
            manifest = job.manifest or await self._make(job)
            await self._register(job, manifest)
            await trio.to_thread.run_sync(job.landing.discard)
        except (PenstockError, OSError) as error:
            await self._fail(job, error)
        else:
            job.address = str(Address(self._tracker.node, self._tracker.at, manifest.title_id))
            self._enter(job, Stage.PUBLISHED, 1.0)
            log.info("published %s as %s", manifest.title, job.address)
        finally:
            self._jobs.pop(job.upload, None)

    async def _fail(self, job: Job, error: PenstockError | OSError) -> None:
        reason, detail = Reason.INTERNAL, "the edge failed; its log says why"
        if isinstance(error, RemoteError):
            reason, detail = error.reason, error.detail
        elif isinstance(error, StoreFull):
            reason, detail = (
                Reason.NO_SPACE,
                "the edge's quota or disk is full; its operator can raise `quota`",
            )
        log.warning("upload of %s failed: %s%s", job.landing.order.name, error, self._cure(reason))
        landing = job.landing
        with suppress(OSError):  # the publisher is to hear of the failure that came first
            await trio.to_thread.run_sync(landing.discard_prepared if reason in KEPT else landing.discard)
        self._abandon(job, reason, detail)

    def _cure(self, reason: Reason) -> str:
        """What the operators can do about a refusal, for the log."""
        if reason is not Reason.NOT_ALLOWED:
            return ""
        return (
            "; the file is kept: if the tracker does not know this edge, name it in the tracker's "
            f"`edges` setting as {self._identity.id.hex()}, then publish the file again"
        )

    async def _make(self, job: Job) -> Manifest:
        """The title's manifest, all its pieces in the store."""
        landing = job.landing
        async with self._media:
            self._enter(job, Stage.PREPARING)
            await trio.to_thread.run_sync(landing.check)
            prepared = await prepare(landing.source, landing.target, self._limits, self._progress(job))
        self._enter(job, Stage.HASHING)
        manifest = await trio.to_thread.run_sync(self._sign, landing, prepared)
        async with self._filing:
            await self._file(job, manifest)
        self.know(manifest)
        return manifest

    async def _file(self, job: Job, manifest: Manifest) -> None:
        if manifest.infohash not in self._store.infohashes():
            await self._make_room(room_of(manifest.length))
            await trio.to_thread.run_sync(self._store.add_manifest, manifest)
            await trio.to_thread.run_sync(self._store.pin, manifest.infohash)
            job.fresh = True
        try:
            await self._fill(job, manifest)
        except (StoreError, RemoteError, OSError):
            await self._take_back(job, manifest)
            raise

    async def _take_back(self, job: Job, manifest: Manifest) -> None:
        """Removes a title that this job brought; never one that was here before."""
        if not job.fresh:
            return
        job.fresh = False
        known = self._titles.get(manifest.title_id)
        if known is not None and known.infohash == manifest.infohash:
            del self._titles[manifest.title_id]
        self._core.forget(manifest.infohash)
        self._pump()
        await trio.to_thread.run_sync(self._store.unpin, manifest.infohash)
        await trio.to_thread.run_sync(self._store.remove, manifest.infohash)

    def _progress(self, job: Job) -> Callable[[str, float], None]:
        def tell(stage: str, share: float) -> None:
            # Probing and checking are short: the bar is the work between them.
            if stage not in ("probing", "checking"):
                self._enter(job, Stage.PREPARING, share)

        return tell

    def _sign(self, landing: Landing, prepared: Prepared) -> Manifest:
        tree = layer_of_file(_pieces(landing.target), PIECE_BYTES)
        media = Media(
            bandwidth=prepared.bandwidth,
            average_bandwidth=prepared.average_bandwidth,
            codecs=prepared.codecs,
            duration_ms=sum(duration for _, duration in prepared.segments),
            height=prepared.height,
            width=prepared.width,
            init_bytes=prepared.init_bytes,
            segments=lay_out(prepared.init_bytes, prepared.segments),
        )
        order = landing.order
        draft = manifests.build(
            f"{_cut(Path(order.name).stem, MAX_STEM_BYTES)}.mp4",
            tree,
            title=order.title,
            title_id=order.title_id(self._identity.id),
            media=media,
        )
        return manifests.parse(manifests.sign(draft, self._identity.private_key))

    async def _fill(self, job: Job, manifest: Manifest) -> None:
        for index in range(manifest.piece_count):
            await trio.to_thread.run_sync(self._put, job.landing.target, manifest, index)
            self._enter(job, Stage.HASHING, index / manifest.piece_count)

    def _put(self, path: Path, manifest: Manifest, index: int) -> None:
        with path.open("rb") as file:
            file.seek(index * manifest.piece_length)
            self._store.put(manifest.infohash, index, file.read(manifest.piece_length))

    async def _register(self, job: Job, manifest: Manifest) -> None:
        """Raises Refused if the tracker does not want it; waits for one that is away or in trouble."""
        self._enter(job, Stage.REGISTERING)
        while True:
            answer = await self._ask(self._core.register(manifest))
            if isinstance(answer, Registered):
                break
            if isinstance(answer, Refusal):
                await self._weigh(job, manifest, answer)
            await trio.sleep(REGISTER_PAUSE_SECONDS)
        self._core.hold(manifest, self._store.held(manifest.infohash), clock.now())
        self._pump()

    async def _weigh(self, job: Job, manifest: Manifest, refusal: Refusal) -> None:
        """Returns if the tracker may be asked again. Raises Refused if not."""
        if refusal.reason in PASSING:
            log.info("the tracker cannot take %s now: %s", manifest.title, refusal.detail)
            return
        if refusal.reason in FINAL:
            await self._take_back(job, manifest)
        raise Refused(refusal.reason, f"the tracker: {refusal.detail}")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _detail(error: PenstockError) -> str:
    return _cut(error.detail if isinstance(error, RemoteError) else str(error), MAX_DETAIL_BYTES)


def _cut(text: str, max_bytes: int) -> str:
    """As much of the text as fits, in whole characters."""
    return text.encode()[:max_bytes].decode(errors="ignore")
