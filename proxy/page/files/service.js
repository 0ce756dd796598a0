/* The server's interface, as the page needs it. */

const KEPT_AS = "key";
/** Answers whose version begins so have all that is shown here. */
const SCHEMA = "1.";
const PATIENCE_MS = 120_000;
let lastKey = null;

/** A refusal or a failure. `id` is the server's code or one of the page's own. */
export class Failure extends Error {
  constructor(id, { detail = null, waitS = 0, requestId = null } = {}) {
    super(detail ?? id);
    this.id = id;
    this.detail = detail;
    this.waitS = waitS;
    this.requestId = requestId;
  }
}

/** Keeps a key for this tab, or until the page is left where the browser keeps nothing. */
export function keepKey(key) {
  lastKey = key;
  try {
    sessionStorage.setItem(KEPT_AS, key);
  } catch {
    // It is sent all the same.
  }
}

/** What is served and what a clip may be, or null where that cannot be had now. */
export async function about() {
  try {
    const answer = await fetch("./", { headers: { Accept: "application/json" } });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** The whole answer to a clip, in the language asked for. Rejects with a `Failure`. */
export async function score(clip, name, language, signal) {
  if (!navigator.onLine) throw new Failure("offline");
  const form = new FormData();
  form.append("file", clip, name);
  const headers = { Accept: "application/json", "Accept-Language": language };
  const key = readKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  const patience = new AbortController();
  const stop = () => patience.abort();
  const timer = setTimeout(stop, PATIENCE_MS);
  signal.addEventListener("abort", stop);
  try {
    const answer = await fetch("v1/accent?timeline=true", {
      method: "POST",
      body: form,
      headers,
      signal: patience.signal,
    });
    if (!answer.ok) throw await refusal(answer);
    const document = await answer.json();
    if (!String(document.schema_version).startsWith(SCHEMA)) throw new Failure("other");
    return document;
  } catch (error) {
    if (error instanceof Failure) throw error;
    if (signal.aborted) throw new Failure("cancelled");
    if (patience.signal.aborted) throw new Failure("timeout");
    throw new Failure(navigator.onLine ? "unreachable" : "offline");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  return new Failure(problem.code ?? (answer.status === 503 ? "model_unavailable" : "internal"), {
    detail: problem.detail ?? null,
    waitS: Number(answer.headers.get("Retry-After")) || 0,
    requestId: problem.request_id ?? null,
  });
}

function readKey() {
  try {
    return sessionStorage.getItem(KEPT_AS) ?? lastKey;
  } catch {
    return lastKey;
  }
}
