// The console's question before something is done that cannot be taken back.

import { $, say } from "./kit.js";

/** Asks; the reason given (empty where none is asked for), or null if the answer is no. */
export function confirm({ title, text, yes, asksReason }) {
  const dialog = $("confirm");
  say($("confirm-title"), title);
  say($("confirm-text"), text);
  say($("confirm-yes"), yes);
  $("confirm-reason").value = "";
  $("confirm-reason-row").hidden = !asksReason;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "yes" ? $("confirm-reason").value.trim() : null);
  });
}
