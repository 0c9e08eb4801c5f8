// The console's nodes: this gateway, and the others behind the same Kafka.

import { call } from "./api.js";
import { $, row, say } from "./kit.js";

export function start() {}

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
