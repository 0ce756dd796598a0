/* The page's course: a recording or a file, its way to the server, what comes back. */

import * as store from "./attempts.js";
import { showAttempts } from "./attempts-view.js";
import { byId, focusOn, show } from "./dom.js";
import { endWait, mayPassLater, showFailure } from "./failure.js";
import { MOST_S, obstacle, Recorder, RecordingFault } from "./recorder.js";
import { recordingView } from "./recording-view.js";
import { showResult } from "./result.js";
import { another, sentence } from "./sentences.js";
import { about, Failure, keepKey, score } from "./service.js";
import * as words from "./words.js";

const { t } = words;
const TRACE = 60;
const LEAST_S = 1;

let state = "ready";
let recorder = null;
let sending = null;
let clip = null;
let served = null;
let past = [];
let shown = null;
let view = null;
let trace = [];
let microphone = "fine";
let failing = null;

async function begin() {
  await words.use(words.preferred()).catch(() => words.use("en"));
  byId("sentence").textContent = sentence();
  byId("record").addEventListener("click", toggle);
  byId("another").addEventListener("click", offerAnother);
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("cancel").addEventListener("click", cancel);
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) sendFile(target.files[0]);
    target.value = "";
  });
  for (const each of document.querySelectorAll("[data-language]"))
    each.addEventListener("click", () => speak(each.dataset.language));
  takeDrops();
  addEventListener("resize", renderAttempts);
  addEventListener("online", () => enter(state));
  addEventListener("offline", () => enter(state));
  enter("ready");
  show(byId("main"), true);
  const hindered = obstacle();
  if (hindered) fail(new Failure(hindered), false);
  past = await store.attempts();
  renderAttempts();
  const left = await store.unsent();
  if (left && state === "ready" && !clip) {
    clip = left;
    fail(new Failure("unsent"), false);
  }
  served = await about();
  renderServed();
}

/** Shows a state: what the button does, what is said, what may be pressed. */
function enter(next) {
  state = next;
  document.body.dataset.state = state;
  const busy = state === "sending";
  byId("record").setAttribute("aria-disabled", String(busy || state === "asking"));
  byId("record-word").textContent = t(state === "recording" ? "record.stop" : "record.start");
  show(byId("cancel"), state === "recording" || busy);
  show(byId("choose"), state !== "recording" && !busy);
  byId("clock").textContent = state === "recording" ? words.clock(0) : "";
  byId("another").disabled = state === "recording";
  say();
  for (const each of document.querySelectorAll("[data-language]"))
    each.setAttribute("aria-pressed", String(each.dataset.language === words.language()));
}

function say() {
  const offline = state === "ready" && !navigator.onLine;
  const key =
    state === "recording" && microphone !== "fine" ? `microphone.${microphone}` : `state.${offline ? "offline" : state}`;
  const text = t(key);
  // The same words again would be read out again.
  if (byId("status").textContent !== text) byId("status").textContent = text;
  byId("status").dataset.microphone = state === "recording" ? microphone : "fine";
}

async function toggle() {
  if (state === "recording") await finish();
  else if (state === "ready") await record();
}

async function record() {
  view?.stop();
  endWait();
  show(byId("failure"), false);
  microphone = "fine";
  trace = [];
  enter("asking");
  recorder = new Recorder(look, () => state === "recording" && finish());
  try {
    await recorder.start();
    enter("recording");
  } catch (error) {
    if (!(error instanceof RecordingFault)) throw error;
    fail(new Failure(error.id));
  }
}

function look({ level, seconds, state: judged }) {
  if (state !== "recording") return;
  byId("clock").textContent = `${words.clock(seconds)} / ${words.clock(MOST_S)}`;
  byId("level").style.setProperty("--level", 100 * level);
  trace = [...trace, level].slice(-TRACE);
  const path = trace.map((each, place) => {
    const half = Math.max(0.7, 18 * ((each - 0.35) / 0.65) ** 3);
    const x = (TRACE - trace.length + place + 0.5) * (240 / TRACE);
    return `M${x} ${20 - half}V${20 + half}`;
  });
  byId("trace").firstElementChild.setAttribute("d", path.join(""));
  if (judged !== microphone) {
    microphone = judged;
    say();
  }
}

async function finish() {
  enter("asking");
  const { blob, seconds, silent } = await recorder.stop();
  const name = blob.type.includes("mp4") ? "recording.m4a" : "recording.webm";
  if (silent) fail(new Failure("silent"));
  else if (seconds < LEAST_S) fail(new Failure("short"));
  else await send({ clip: blob, name, sentence: sentence() });
}

async function sendFile(file) {
  const limit = served?.limits?.max_upload_bytes;
  if (!file.size) fail(new Failure("empty_file"));
  else if (limit && file.size > limit) fail(new Failure("file_too_large"));
  else await send({ clip: file, name: file.name, sentence: null });
}

function cancel() {
  if (state === "recording") {
    recorder.release();
    enter("ready");
    byId("record").focus();
  } else sending?.abort();
}

async function send(next) {
  clip = next;
  endWait();
  show(byId("failure"), false);
  enter("sending");
  sending = new AbortController();
  const language = words.language();
  try {
    const document = await score(clip.clip, clip.name, language, sending.signal);
    const at = Date.now();
    const attempt = await store.keepAttempt({ at, document, language, ...clip, clip: clip.clip });
    await store.forgetUnsent();
    past = [...past, attempt];
    enter("ready");
    await open(attempt);
  } catch (error) {
    // Whatever else it was, nobody is left waiting for it.
    if (!(error instanceof Failure)) console.error(error);
    if (mayPassLater(error.id)) await store.keepUnsent(clip.clip, clip.name);
    fail(error instanceof Failure ? error : new Failure("other"));
  }
}

function fail(failure, focused = true) {
  const again = clip && (() => send(clip));
  failing = failure;
  enter("ready");
  showFailure(byId("failure"), failure, {
    onAgain: again,
    onKey: (key) => {
      keepKey(key);
      send(clip);
    },
  });
  show(byId("failure"), true);
  show(byId("empty"), !shown);
  if (focused) focusOn(byId("failure"));
}

/** Shows an attempt's result and gives it the focus. */
async function open(attempt, focused = true) {
  view?.stop();
  shown = attempt;
  const place = past.findIndex(({ id }) => id === attempt.id);
  view = await recordingView(store.clipOf(attempt), attempt.document);
  if (shown !== attempt) return;
  showResult(byId("result"), attempt, view.element, past[place - 1] ?? null);
  show(byId("result"), true);
  show(byId("failure"), false);
  renderAttempts();
  if (focused) focusOn(byId("result"));
}

function renderAttempts() {
  show(byId("attempts"), past.length > 0);
  show(byId("empty"), !past.length && !shown);
  if (past.length)
    showAttempts(byId("attempts"), past, shown?.id ?? null, { onOpen: open, onForget: forget });
  else byId("attempts").replaceChildren();
}

async function forget() {
  await store.forgetAttempts();
  await store.forgetUnsent();
  view?.stop();
  past = [];
  shown = clip = null;
  show(byId("result"), false);
  show(byId("failure"), false);
  byId("result").replaceChildren();
  renderAttempts();
  enter("ready");
  byId("status").textContent = t("attempts.gone");
  byId("record").focus();
}

function offerAnother() {
  byId("sentence").textContent = another();
}

/** Changes the language of everything, the server's words on the attempt that is shown included. */
async function speak(chosen) {
  await words.use(chosen);
  words.keep(chosen);
  enter(state);
  renderServed();
  // What the server said of the fault is in the other language; the page's own words remain.
  if (!byId("failure").hidden) fail(Object.assign(failing, { detail: null }), false);
  if (!shown) {
    renderAttempts();
    return;
  }
  const sound = store.clipOf(shown);
  if (shown.language !== chosen && sound) await translate(shown, sound, chosen);
  await open(shown, false);
}

/** Asks once more for the words to a clip. Where that fails, they stay in the other language. */
async function translate(attempt, sound, chosen) {
  try {
    const document = await score(sound, "clip", chosen, new AbortController().signal);
    Object.assign(attempt, { document, language: chosen });
    await store.putAttempt(attempt);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
  }
}

function renderServed() {
  const model = served?.model;
  byId("served").textContent = model ? t("served", { name: model.name, version: model.version }) : "";
  byId("notice").textContent = model?.notice ?? "";
  show(byId("notice"), Boolean(model?.notice));
}

function takeDrops() {
  const files = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    document.body.dataset.drag = "";
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete document.body.dataset.drag;
  });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    delete document.body.dataset.drag;
    const file = event.dataTransfer.files[0];
    if (file && state === "ready") sendFile(file);
  });
}

begin();
