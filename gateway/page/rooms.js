// The console's rooms: by name, a page at a time, with their members.

import { call } from "./api.js";
import { $, count, element, say } from "./kit.js";

const PAGE = 50;

/** Counts questions: an answer that comes after a later question is not shown. */
let asked = 0;
let after = "";
let next = null;

export function start() {
  $("rooms-form").onsubmit = (event) => {
    event.preventDefault();
    load("");
  };
  $("rooms-first").onclick = () => load("");
  $("rooms-next").onclick = () => load(next);
}

export function show() {
  load(after);
}

async function load(from) {
  after = from ?? "";
  const question = ++asked;
  const prefix = $("rooms-prefix").value;
  try {
    const answer = await call(`v1/rooms?${new URLSearchParams({ prefix, after, limit: PAGE })}`);
    if (question !== asked) return;
    $("rooms-list").dataset.prefix = prefix;
    next = answer.next;
    $("rooms-list").replaceChildren(...answer.rooms.map(roomRow));
    say($("rooms-said"), answer.rooms.length ? "" : after ? "No further rooms." : "No room with such a name has members.");
  } catch (error) {
    say($("rooms-said"), error.message);
    next = null;
    $("rooms-list").replaceChildren();
  }
  $("rooms-first").disabled = after === "";
  $("rooms-next").disabled = next === null;
}

function roomRow({ room, members }) {
  const row = element("tr", "", "");
  const name = element("th", "name", room);
  name.scope = "row";
  const actions = element("td", "", "");
  const push = element("a", "", "Push");
  push.href = `#push/room/${encodeURIComponent(room)}`;
  push.ariaLabel = `Push to ${room}`;
  actions.append(push);
  row.append(name, element("td", "", count.format(members)), actions);
  return row;
}
