// How numbers and people's words are shown; text goes in by textContent only.

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function scaled(value, units, step) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)}\u00a0${units[unit]}`;
}

export const bytes = (count) => scaled(count || 0, ["B", "kB", "MB", "GB", "TB"], 1000);

// Rates are kept in bytes per second and shown as lines are sold: in bits.
export const rate = (perSecond) => scaled(8 * (perSecond || 0), ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"], 1000);

export const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

export function duration(milliseconds) {
  const all = Math.round(milliseconds / 1000);
  const parts = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}

export function facts(rendition) {
  const said = [];
  if (rendition.duration_ms) said.push(duration(rendition.duration_ms));
  if (rendition.height) said.push(`${rendition.width}\u00d7${rendition.height}`);
  if (rendition.bandwidth) said.push(rate(rendition.bandwidth / 8));
  said.push(bytes(rendition.length));
  return said.join(" \u00b7 ");
}

export function peerLine(peer) {
  const said = [[peer.kind, peer.mode].filter(Boolean).join(", ")];
  if (peer.tracker_up !== undefined) said.push(peer.tracker_up ? "tracker connected" : "tracker not reached");
  return said.filter(Boolean).join(" \u00b7 ");
}

// The answer as JSON; an error carries the door's one line of text and its status.
// With a wish, it is posted.
export async function ask(path, wish) {
  let answer;
  try {
    const posted = wish === undefined ? {} : { method: "POST", body: JSON.stringify(wish) };
    answer = await fetch(path, { cache: "no-store", ...posted });
  } catch {
    throw Object.assign(new Error("Penstock is not running on this machine."), { status: 0 });
  }
  const text = await answer.text();
  if (!answer.ok) throw Object.assign(new Error(text.trim()), { status: answer.status });
  return answer.headers.get("content-type").includes("json") ? JSON.parse(text) : text;
}

export const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Calls `step` now and then every `seconds`, but not while nobody can see the page.
export async function whileSeen(seconds, step) {
  for (;;) {
    if (!document.hidden) await step();
    await wait(seconds);
  }
}

export function say(notice, text) {
  notice.hidden = !text;
  if (notice.textContent !== text) notice.textContent = text;
}
