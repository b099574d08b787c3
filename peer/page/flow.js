// Where the bytes come from: polled once a second and painted.

import { ask, bytes, byId, element, percent, peerLine, rate, whileSeen } from "./shown.js";

const SHOWN_SOURCES = 12;

const total = (renditions, key) => renditions.reduce((sum, one) => sum + (one[key] || 0), 0);

function paintBar(peerBytes, edgeBytes) {
  const all = peerBytes + edgeBytes;
  const share = all ? peerBytes / all : 0;
  byId("offload").textContent = all ? percent(share) : "\u2013";
  byId("from-peers").textContent = bytes(peerBytes);
  byId("from-edges").textContent = bytes(edgeBytes);
  const bar = byId("bar");
  bar.children[0].style.width = `${100 * share}%`;
  bar.children[1].style.width = `${all ? 100 * (1 - share) : 0}%`;
  bar.ariaLabel = all ? `${percent(share)} from viewers, ${percent(1 - share)} from edges` : "No bytes yet";
}

function paintCap(peer) {
  const used = peer.cap_rate ? Math.min(1, (peer.up_rate || 0) / peer.cap_rate) : 0;
  const off = peer.mode === "direct" ? "nothing is uploaded" : "no cap set";
  byId("cap").textContent = peer.cap_rate ? `${percent(used)} of ${rate(peer.cap_rate)}` : off;
  byId("cap-use").value = used;
}

function sourceRow(source) {
  const edge = source.kind === "edge";
  const kind = element("span", { className: `kind ${edge ? "edges" : "peers"}`, textContent: source.kind || "peer" });
  const given = source.name || String(source.node || "").slice(0, 8);
  const name = given.startsWith(`${source.kind} `) ? given.slice(source.kind.length + 1) : given;
  return element("tr", {},
    element("td", {}, kind, element("span", { className: "name", textContent: name, title: source.node || "" })),
    element("td", { className: "number", textContent: bytes(source.taken_bytes) }),
    element("td", { className: "number", textContent: source.rate >= 1 ? rate(source.rate) : "\u2013" }));
}

function paintSources(renditions) {
  const sources = renditions.flatMap((one) => one.sources || []);
  sources.sort((one, other) => (other.taken_bytes || 0) - (one.taken_bytes || 0));
  const rows = sources.slice(0, SHOWN_SOURCES).map(sourceRow);
  const rest = sources.length - rows.length;
  const note = rest ? `and ${rest} more` : "None yet";
  if (rest || !rows.length) {
    rows.push(element("tr", {}, element("td", { colSpan: 3, className: "quiet", textContent: note })));
  }
  byId("sources").replaceChildren(...rows);
}

// One column per pixel; its height is split by where the pieces under it came from.
function paintMap(rendition, playhead) {
  const held = rendition.held || "";
  const canvas = byId("map");
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colours = ["e", "p", "1"].map((kind) => [kind, style.getPropertyValue(`--map-${kind}`)]);
  pen.clearRect(0, 0, width, height);
  for (let x = 0; x < width && held; x += 1) {
    const first = Math.floor((x * held.length) / width);
    const under = held.slice(first, Math.max(first + 1, Math.floor(((x + 1) * held.length) / width)));
    let bottom = height;
    for (const [kind, colour] of colours) {
      const tall = (height * (under.split(kind).length - 1)) / under.length;
      pen.fillStyle = colour;
      pen.fillRect(x, bottom - tall, 1, tall);
      bottom -= tall;
    }
  }
  pen.fillStyle = style.getPropertyValue("--text");
  if (playhead !== null) pen.fillRect(Math.min(width - 2 * ratio, playhead * width), 0, 2 * ratio, height);
  const count = held.replace(/[^ep1]/g, "").length;
  const said = held ? `${count} of ${held.length} pieces` : "";
  byId("held").textContent = said;
  canvas.ariaLabel = `Pieces held: ${said || "none"}`;
}

function paint(title, video) {
  const { renditions, peer } = title;
  paintBar(total(renditions, "peer_bytes"), total(renditions, "edge_bytes"));
  paintCap(peer);
  paintSources(renditions);
  paintMap(renditions[0], video.duration ? video.currentTime / video.duration : null);
  byId("down").textContent = rate(total(renditions, "down_rate"));
  byId("up").textContent = rate(total(renditions, "up_rate"));
  byId("given").textContent = bytes(total(renditions, "uploaded_bytes"));
  byId("stalls").textContent = total(renditions, "stalls");
  byId("connections").textContent = peer.connections ?? "\u2013";
  byId("peer").textContent = peerLine(peer);
}

export function showFlow(titleId, video) {
  const path = `/api/v1/titles/${titleId}/statistics`;
  whileSeen(1, async () => {
    try {
      paint(await ask(path), video);
    } catch (error) {
      byId("peer").textContent = error.message;
    }
  });
}
