// The console's nodes: this gateway, and the others behind the same Kafka.

import { call } from "./api.js";
import { confirm } from "./confirm.js";
import { $, count, element, row, say } from "./kit.js";

export function start() {
  $("drain").onclick = drain;
  $("reload").onclick = reload;
}

export function show() {
  poll();
}

/** Once a second while the view is shown. */
export async function poll() {
  try {
    const { nodes } = await call("v1/nodes");
    const alone = nodes.length === 1 && nodes[0].node === null;
    say($("nodes-said"), alone ? "Nodes do not know of each other here: kafka.nodes_topic is not set." : "");
    $("nodes-list").replaceChildren(...nodes.map(nodeRow));
  } catch (error) {
    say($("nodes-said"), error.message);
  }
}

function nodeRow({ node, this: own, state, connections, addresses, rooms, lag, silent_ms }) {
  const name = node ?? "this node";
  return row([
    own && node ? `${name} (this)` : name,
    state,
    connections,
    addresses,
    rooms,
    lag,
    own ? "–" : `${(silent_ms / 1000).toFixed(1)}\u00a0s ago`,
  ]);
}

async function drain() {
  const text = "All of its clients are sent away, over the configured window, and then the process ends. This cannot be taken back.";
  if ((await confirm({ title: "Drain this node?", text, yes: "Drain" })) === null) return;
  await act(async () => {
    const { begun, connections, ms_max } = await call("v1/drain", { method: "POST" });
    return begun ? `${count.format(connections)} connections are being sent away, within ${ms_max / 1000} s` : "It drains already";
  });
}

async function reload() {
  await act(async () => {
    const { applied, needs_restart } = await call("v1/reload", { method: "POST" });
    $("nodes-changes").replaceChildren(
      ...applied.map((change) => changeRow("applied", change)),
      ...needs_restart.map((change) => changeRow("needs a restart", change)),
    );
    return applied.length + needs_restart.length ? "Read anew:" : "Read anew: nothing has changed";
  });
}

async function act(what) {
  $("nodes-changes").replaceChildren();
  try {
    say($("nodes-done"), await what());
  } catch (error) {
    say($("nodes-done"), error.message);
  }
}

function changeRow(done, { key, old, new: now }) {
  const made = element("div", "", "");
  made.append(element("dt", "", done), element("dd", "", `${key}: ${old ?? "unset"} → ${now ?? "unset"}`));
  return made;
}
