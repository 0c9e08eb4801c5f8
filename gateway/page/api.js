// The gateway's API as the console calls it: with the operator's token, which stays in the tab.

import { errorWords } from "./kit.js";

const TIMEOUT_MS = 10_000;
const PLACE = "halley-token";

let token = sessionStorage.getItem(PLACE) ?? "";
let refused = () => {};

/** `whenRefused` is called with a sentence when the API wants another token. */
export function onRefused(whenRefused) {
  refused = whenRefused;
}

export const hasToken = () => token !== "";

export function setToken(text) {
  token = text;
  if (text) sessionStorage.setItem(PLACE, text);
  else sessionStorage.removeItem(PLACE);
}

/** An answer that is an error, with its status (0: there was none) and a sentence. */
export class ApiError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Calls the API; the answer's JSON, or an ApiError. */
export async function call(path, { method = "GET", body } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  let text;
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
    text = await answer.text();
  } catch {
    throw new ApiError(0, "The gateway does not answer");
  }
  if (answer.ok) return text ? JSON.parse(text) : {};
  const words = errorWords(text);
  if (answer.status === 401) refused(token ? "The gateway does not know this token." : "");
  throw new ApiError(answer.status, answer.status === 403 ? `This token may not: ${words}` : words);
}
