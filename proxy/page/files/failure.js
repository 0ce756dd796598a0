/* What went wrong, what helps, and the way on. */

import { make } from "./dom.js";
import { has, number, t } from "./words.js";

/** Kinds that the server or the line may be over in a while: the same clip may then pass. */
const AGAIN = [
  "offline",
  "unreachable",
  "overloaded",
  "model_unavailable",
  "rate_limited",
  "timeout",
  "upload_too_slow",
  "internal",
  "cancelled",
  "unsent",
];
const LEAST_WAIT_S = 2;
const WAITS = ["overloaded", "model_unavailable", "rate_limited"];

let ticking = null;

/** Whether a clip that failed so may pass when it is sent once more. */
export const mayPassLater = (id) => AGAIN.includes(id) || id === "unauthorized";

/** Fills `place`. `onAgain()` sends the same clip once more, `onKey(key)` does with a key. */
export function showFailure(place, failure, { onAgain, onKey }) {
  endWait();
  const known = has(`failure.${failure.id}.title`) ? failure.id : "other";
  const remedy = `failure.${known}.text`;
  const parts = [
    make("h2", { id: "failure-title" }, t(`failure.${known}.title`)),
    failure.detail && known !== "unauthorized" ? make("p", {}, failure.detail) : null,
    has(remedy) ? make("p", {}, t(remedy)) : null,
    known === "unauthorized" ? keyForm(onKey) : null,
    ...(AGAIN.includes(failure.id) && onAgain ? again(failure, onAgain) : []),
    failure.requestId && ["internal", "other"].includes(known)
      ? make("p", { class: "note" }, t("failure.request", { id: failure.requestId }))
      : null,
  ];
  place.replaceChildren(...parts.filter(Boolean));
}

/** Stops counting down, where a failure is left. */
export function endWait() {
  clearInterval(ticking);
  ticking = null;
}

function again(failure, onAgain) {
  const button = make("button", { type: "button", class: "solid", onclick: onAgain }, t("again"));
  const waitS = WAITS.includes(failure.id) ? Math.max(failure.waitS, LEAST_WAIT_S) : 0;
  const kept = make("p", { class: "note" }, t("failure.kept"));
  if (!waitS) return [kept, button];
  // Shown once more in another language, it waits no longer.
  failure.until ??= performance.now() + waitS * 1000;
  // Not said every second: a screen reader hears that it may go on, once.
  const countdown = make("p", { class: "countdown", "aria-live": "off" });
  button.hidden = true;
  const tick = () => {
    const left = Math.ceil((failure.until - performance.now()) / 1000);
    countdown.textContent = t("failure.wait", { seconds: number(Math.max(left, 1)) });
    if (left > 0) return;
    endWait();
    countdown.textContent = t("failure.ready");
    countdown.setAttribute("aria-live", "polite");
    button.hidden = false;
  };
  tick();
  ticking = setInterval(tick, 250);
  return [kept, countdown, button];
}

function keyForm(onKey) {
  const field = make("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    required: "",
  });
  const send = () => field.value.trim() && onKey(field.value.trim());
  field.addEventListener("keydown", (event) => event.key === "Enter" && send());
  return make(
    "div",
    { class: "key" },
    make("label", { for: "key" }, t("key.label")),
    field,
    make("button", { type: "button", class: "solid", onclick: send }, t("key.use")),
  );
}
