// The console: one view at a time, named in the address, over the gateway's API.

import { ApiError, call, hasToken, onRefused, setToken } from "./api.js";
import { $, say } from "./kit.js";
import * as connections from "./connections.js";
import * as nodes from "./nodes.js";
import * as overview from "./overview.js";
import * as push from "./push.js";
import * as rooms from "./rooms.js";

const POLL_MS = 1_000;
const VIEWS = { overview, rooms, connections, push, nodes };

let signingIn = false;

/** The view in the address and what it shows: `#rooms`, `#connections/key/a%20key`. */
function address() {
  const [view, ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
  return VIEWS[view] ? { view, rest } : { view: "overview", rest: [] };
}

function show({ focus }) {
  const { view, rest } = address();
  $("sign-in").hidden = !signingIn;
  for (const name of Object.keys(VIEWS)) $(name).hidden = signingIn || name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.ariaCurrent = "page";
    else link.removeAttribute("aria-current");
  }
  $("forget").hidden = !hasToken();
  if (signingIn) return;
  VIEWS[view].show?.(rest);
  if (focus) $(`${view}-title`).focus();
}

function signIn(sentence) {
  signingIn = true;
  say($("token-hint"), sentence || "It stays in this tab until the tab is closed.");
  show({ focus: false });
  $("token").focus();
}

function startToken() {
  onRefused((sentence) => {
    if (!signingIn) signIn(sentence);
  });
  $("token-form").onsubmit = async (event) => {
    event.preventDefault();
    setToken($("token").value.trim());
    $("token").value = "";
    try {
      await call("v1/stats");
      signingIn = false;
      show({ focus: true });
    } catch (error) {
      say($("token-hint"), error.message);
    }
  };
  $("forget").onclick = () => {
    setToken("");
    location.reload();
  };
}

/** Asks once a second, whatever comes of it. */
async function poll() {
  try {
    if (!signingIn) await ask();
  } finally {
    setTimeout(poll, POLL_MS);
  }
}

async function ask() {
  try {
    const stats = await call("v1/stats");
    overview.draw(stats);
    state(stats.draining ? "waiting" : "open", stats.draining ? "draining" : "serving");
  } catch (error) {
    overview.draw(null);
    if (!(error instanceof ApiError)) throw error;
    state("waiting", error.status === 401 ? "asks for a token" : error.status ? error.message : "does not answer, asking again");
  }
  if (!signingIn) await VIEWS[address().view].poll?.();
}

function state(phase, words) {
  $("state").dataset.phase = phase;
  say($("state"), words);
}

for (const view of Object.values(VIEWS)) view.start();
startToken();
addEventListener("hashchange", () => show({ focus: true }));
show({ focus: false });
poll();
