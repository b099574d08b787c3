// What this peer uploads, under which cap, and the switches for it.

import { ask, byId, bytes, percent, rate, say } from "./shown.js";

const HOUR = 3600;
const FORBIDDEN = {
  direct: "Nothing is uploaded: you chose to only receive.",
  paused: "Uploads are paused.",
  metered: "Nothing is uploaded on this network.",
  "quiet hours": "Quiet hours: nothing is uploaded.",
  "day's budget used up": "Today's budget is used up.",
  "month's budget used up": "This month's budget is used up.",
  "the ledger cannot be written": "The disk refuses the upload ledger, so nothing is uploaded.",
};
const GROUNDS = {
  configured: "as you set it",
  estimated: "estimated",
  measured: "measured",
  corrected: "less than you set: it was full with this much",
};

function nowLine(sharing, cap) {
  if (sharing.uploading) return `Uploading at most ${rate(cap.cap_rate)}, now ${rate(cap.up_rate)}.`;
  const until = sharing.until ? ` Until ${new Date(1000 * sharing.until).toLocaleString()}.` : "";
  return (FORBIDDEN[sharing.why] || sharing.why) + until;
}

function lineLine(cap) {
  const said = [`Line ${rate(cap.uplink_rate)}, ${GROUNDS[cap.grounds]}`];
  if (cap.confidence < 1) said.push(`used as if it were ${percent(cap.confidence)} of that until it is surer`);
  said.push(cap.household_seen ? `your household sends ${rate(cap.household_rate)}` : "your household's traffic cannot be seen");
  if (cap.guard_share < 0.95) said.push("packets wait before the line, so less is sent");
  return `${said.join("; ")}.`;
}

function useLine(sharing) {
  const left = sharing.left_bytes === null ? "" : `, ${bytes(sharing.left_bytes)} left`;
  return `Sent today ${bytes(sharing.day_bytes)}, this month ${bytes(sharing.month_bytes)}${left}.`;
}

export function showSharing(peer) {
  const { sharing, cap } = peer;
  byId("sharing").hidden = !sharing || !cap;
  if (!sharing || !cap) return;
  say(byId("sharing-now"), nowLine(sharing, cap));
  say(byId("sharing-line"), lineLine(cap));
  say(byId("sharing-use"), useLine(sharing));
  const direct = peer.mode === "direct";
  const metered = sharing.metered.includes(sharing.network);
  set("pause", sharing.paused ? "Go on uploading" : "Pause uploads", { pause: !sharing.paused }, direct);
  set("pause-hour", "For an hour", { pause: HOUR }, direct || sharing.paused);
  set("metered", metered ? "Upload on this network" : "Not on this network", { metered_here: !metered }, direct || !sharing.network);
  set("mode", direct ? "Agree to upload" : "Never upload", { mode: direct ? "shared" : "direct" }, false);
}

function set(id, text, wish, hidden) {
  const button = byId(id);
  if (button.textContent !== text) button.textContent = text;
  button.hidden = hidden;
  button.onclick = () => change(wish);
}

async function change(wish) {
  try {
    await ask("/api/v1/sharing", wish);
    showSharing(await ask("/api/v1/statistics"));
  } catch (error) {
    say(byId("sharing-now"), error.message);
  }
}
