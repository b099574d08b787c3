// Plays a title. What is shown beside it is in flow.js.

import { showFlow } from "./flow.js";
import { ask, byId, facts, say, wait } from "./shown.js";

const RETRY_SECONDS = 2;
const MEDIA_RECOVERIES = 2;

const titleId = location.pathname.split("/").pop();
const master = `/titles/${titleId}/master.m3u8`;
const video = byId("video");
const notice = byId("notice");
const openedAt = performance.now();

const patience = {
  maxTimeToFirstByteMs: 45000, // a swarm may need longer than a data centre
  maxLoadTimeMs: 300000,
  timeoutRetry: { maxNumRetry: 4, retryDelayMs: 0, maxRetryDelayMs: 0 },
  errorRetry: { maxNumRetry: 6, retryDelayMs: 1000, maxRetryDelayMs: 8000 },
};

// The door says in one line why something does not work; players only say that it does not.
async function waitForFilm() {
  for (;;) {
    try {
      await ask(master);
      say(notice, "");
      return;
    } catch (error) {
      say(notice, error.message);
      if (error.status && error.status < 500) throw error;
      await wait(RETRY_SECONDS);
    }
  }
}

function playWithHls() {
  const hls = new Hls({
    startFragPrefetch: true,
    maxBufferLength: 30,
    backBufferLength: 60,
    fragLoadPolicy: { default: patience },
  });
  let recoveries = 0;
  hls.on(Hls.Events.ERROR, async (_, problem) => {
    if (!problem.fatal) return;
    if (problem.type === Hls.ErrorTypes.NETWORK_ERROR) {
      await waitForFilm().then(() => wait(RETRY_SECONDS)).then(() => hls.startLoad(), () => hls.destroy());
    } else if (problem.type === Hls.ErrorTypes.MEDIA_ERROR && recoveries < MEDIA_RECOVERIES) {
      recoveries += 1;
      hls.recoverMediaError();
    } else {
      hls.destroy();
      say(notice, `This browser cannot play it (${problem.details}). Try the MP4 file in another player.`);
    }
  });
  hls.on(Hls.Events.FRAG_BUFFERED, () => {
    recoveries = 0;
    say(notice, "");
  });
  hls.loadSource(master);
  hls.attachMedia(video);
}

function play(mp4) {
  if (window.Hls?.isSupported()) {
    playWithHls();
  } else {
    const native = video.canPlayType("application/vnd.apple.mpegurl");
    video.src = native ? master : mp4;
    video.addEventListener("error", () => say(notice, `This browser cannot play it: ${video.error?.message}`));
  }
  video.play().catch(() => {}); // browsers may want a click first; the controls are there
}

function introduce(title) {
  const best = title.renditions[0];
  document.title = `${title.title} \u2013 Penstock`;
  byId("title").textContent = title.title;
  byId("facts").textContent = facts(best);
  const mp4 = byId("mp4");
  mp4.href = best.mp4;
  mp4.hidden = false;
  return best.mp4;
}

byId("copy-hls").addEventListener("click", async ({ target }) => {
  const usual = target.textContent;
  try {
    await navigator.clipboard.writeText(location.origin + master);
    target.textContent = "Copied";
  } catch {
    window.prompt("HLS address", location.origin + master);
  }
  await wait(RETRY_SECONDS);
  target.textContent = usual;
});

video.addEventListener("playing", () => {
  byId("startup").textContent = `${((performance.now() - openedAt) / 1000).toFixed(1)}\u00a0s`;
}, { once: true });

try {
  await waitForFilm();
  const title = await ask(`/api/v1/titles/${titleId}/statistics`);
  play(introduce(title));
  showFlow(titleId, video);
} catch (error) {
  say(notice, error.message);
}
