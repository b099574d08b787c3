// The list of titles.

import { ask, byId, element, facts, peerLine, say, whileSeen } from "./shown.js";
import { showSharing } from "./sharing.js";

const FILTER_FROM = 9; // fewer titles than this are seen at a glance

let titles = [];
let painted = "";

function card(title) {
  const best = title.renditions[0];
  const playable = title.renditions.some((rendition) => rendition.bandwidth);
  const about = element("p", { className: "quiet", textContent: facts(best) });
  const name = element("a", { href: playable ? title.page : best.mp4, textContent: title.title });
  const sort = element("span", { className: "sort", ariaHidden: "true", textContent: playable ? "\u25b6" : "\u2913" });
  return element("li", {}, element("article", {}, sort, element("div", {}, element("h2", {}, name), about)));
}

function paint() {
  const wanted = byId("filter").value.trim().toLocaleLowerCase();
  const shown = titles.filter((title) => title.title.toLocaleLowerCase().includes(wanted));
  byId("titles").replaceChildren(...shown.map(card));
  byId("filter").hidden = titles.length < FILTER_FROM;
  const nothing = titles.length ? "No title has this in its name." : "Nothing has been published yet.";
  say(byId("notice"), shown.length ? "" : nothing);
}

async function refresh() {
  try {
    const answer = await ask("/api/v1/titles");
    const text = JSON.stringify(answer);
    if (text !== painted) {
      titles = answer.titles;
      painted = text;
      paint(); // only what changed, so that keyboard focus stays where it is
    }
    const peer = await ask("/api/v1/statistics");
    byId("peer").textContent = peerLine(peer);
    showSharing(peer);
  } catch (error) {
    painted = "";
    say(byId("notice"), error.message);
  }
}

byId("filter").addEventListener("input", paint);
byId("playlist").textContent = `${location.origin}/playlist.m3u`;
whileSeen(5, refresh);
