// The console's push: one message to a room, a key, a member or everybody.

import { call } from "./api.js";
import { confirm } from "./confirm.js";
import { $, resultWords, say } from "./kit.js";

const target = () => $("push-form").elements.target;

export function start() {
  $("push-form").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  $("push-form").oninput = draw;
  draw();
}

/** What the address names: a kind of target and its name, or nothing. */
export function show([kind, name]) {
  if (!name) return;
  target().value = kind;
  $("push-name").value = name;
  say($("push-result"), "");
  draw();
}

function draw() {
  const kind = target().value;
  const input = $("push-name");
  $("push-name-row").hidden = kind === "all";
  input.disabled = kind === "all";
  input.pattern = kind === "member" ? "-?\\d{1,19}" : ".*";
}

async function send() {
  const kind = target().value;
  const name = $("push-name").value;
  const everybody = { title: "Push to everybody?", text: "Every connection of the gateway that accepts the operation gets the message.", yes: "Send" };
  if (kind === "all" && (await confirm(everybody)) === null) return;
  const body = {
    target: { room: { room: name }, key: { keys: [name] }, member: { members: [Number(name)] }, all: { all: true } }[kind],
    operation: Number($("push-operation").value),
    payload: { text: $("push-text").value },
  };
  try {
    const { results } = await call("v1/push", { method: "POST", body });
    say($("push-result"), resultWords(results));
  } catch (error) {
    say($("push-result"), error.message);
  }
}
