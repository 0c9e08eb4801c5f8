// The console's connections: found by key or member, looked at, and ended.

import { call } from "./api.js";
import { confirm } from "./confirm.js";
import { $, count, element, say } from "./kit.js";

/** Rooms and operations of a connection that are written out. */
const LISTED_MAX = 20;

const form = () => $("find-form").elements;

export function start() {
  $("find-form").onsubmit = (event) => {
    event.preventDefault();
    const address = `#connections/${form().kind.value}/${encodeURIComponent($("find-name").value.trim())}`;
    if (location.hash === address) find();
    else location.hash = address;
  };
}

/** What the address names: a kind and a name, or nothing. */
export function show([kind, name]) {
  if (!name) return;
  form().kind.value = kind === "member" ? "member" : "key";
  $("find-name").value = name;
  find();
}

async function find() {
  const kind = form().kind.value;
  const name = $("find-name").value.trim();
  $("found").replaceChildren();
  try {
    if (kind === "key") return drawKey(await call(`v1/connections/${encodeURIComponent(name)}`));
    drawMember(await call(`v1/members/${encodeURIComponent(name)}`));
  } catch (error) {
    say($("find-said"), error.message);
  }
}

function drawKey({ key, connections }) {
  say($("find-said"), `${count.format(connections.length)} ${connections.length === 1 ? "connection" : "connections"} of the key`);
  const sheet = element("article", "sheet", "");
  const head = element("div", "head", "");
  const push = element("a", "", "Push");
  push.href = `#push/key/${encodeURIComponent(key)}`;
  const kick = element("button", "danger", "Kick");
  kick.type = "button";
  kick.onclick = () => kickKey(key, connections.length);
  head.append(element("h3", "name", key), push, kick, revokeButton({ key }, `key ${key}`));
  sheet.append(head, ...connections.map(connectionTerms));
  $("found").replaceChildren(sheet);
}

function connectionTerms(connection) {
  const { connection: word, shard, peer, transport, age_ms, rooms, accepts, queued_bytes, queued_messages } = connection;
  const list = element("dl", "terms", "");
  const listed = (all) => (all.length > LISTED_MAX ? `${all.slice(0, LISTED_MAX).join(", ")} and ${all.length - LISTED_MAX} more` : all.join(", "));
  const terms = [
    ["Connection", `${word} on shard ${shard}`],
    ["Peer", peer],
    ["Transport", transport],
    ["Age", age(age_ms)],
    ["Rooms", listed(rooms) || "none"],
    ["Accepts", listed(accepts) || "none"],
    ["Queue", queued_messages ? `${count.format(queued_messages)} messages, ${count.format(queued_bytes)} bytes` : "empty"],
  ];
  for (const [term, words] of terms) {
    const row = element("div", "", "");
    row.append(element("dt", "", term), element("dd", "", words));
    list.append(row);
  }
  return list;
}

function age(ms) {
  const s = Math.floor(ms / 1000);
  const parts = [[Math.floor(s / 86_400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = parts.findIndex(([n]) => n > 0);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

function drawMember({ member, keys, more }) {
  say($("find-said"), `${count.format(keys.length)}${more ? " and more" : ""} ${keys.length === 1 ? "key" : "keys"} of member ${member}`);
  const sheet = element("article", "sheet", "");
  const list = element("ul", "keys", "");
  list.append(
    ...keys.map(({ key, connections }) => {
      const row = element("li", "", "");
      const link = element("a", "name", key);
      link.href = `#connections/key/${encodeURIComponent(key)}`;
      row.append(link, element("span", "", `${count.format(connections)} ${connections === 1 ? "connection" : "connections"}`));
      return row;
    }),
  );
  const push = element("a", "", "Push to the member");
  push.href = `#push/member/${member}`;
  const foot = element("div", "buttons", "");
  foot.append(push, revokeButton({ member }, `member ${member}`));
  sheet.append(list, foot);
  $("found").replaceChildren(sheet);
}

async function kickKey(key, connections) {
  const what = connections === 1 ? "Its connection is" : `Its ${count.format(connections)} connections are`;
  const reason = await confirm({ title: `Kick ${key}?`, text: `${what} closed with 4005. The client decides whether it comes back.`, yes: "Kick", asksReason: true });
  if (reason === null) return;
  try {
    const { closed, told } = await call(`v1/connections/${encodeURIComponent(key)}?${new URLSearchParams({ reason })}`, { method: "DELETE" });
    $("found").replaceChildren();
    say($("find-said"), `${closedWords({ closed, told })} of ${key} kicked`);
  } catch (error) {
    say($("find-said"), error.message);
  }
}

/** Ends what somebody has, and refuses the tokens that were issued until now. */
function revokeButton(whose, words) {
  const button = element("button", "danger", "Revoke");
  button.type = "button";
  button.onclick = async () => {
    const text = "Connections end with 4007, and tokens that were issued until now are refused for 24 hours, on every node.";
    if ((await confirm({ title: `Revoke what ${words} has?`, text, yes: "Revoke" })) === null) return;
    try {
      say($("find-said"), `${closedWords(await call("v1/revocations", { method: "POST", body: whose }))} of ${words} revoked`);
      $("found").replaceChildren();
    } catch (error) {
      say($("find-said"), error.message);
    }
  };
  return button;
}

function closedWords({ closed, told }) {
  const others = told ? ` here (${count.format(told)} other ${told === 1 ? "node" : "nodes"} told)` : "";
  return `${count.format(closed)} ${closed === 1 ? "connection" : "connections"}${others}`;
}
