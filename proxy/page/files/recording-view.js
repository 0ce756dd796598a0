/* The sound of an attempt: its outline, the timeline under it, and any part played again. */

import { draw, make } from "./dom.js";
import { decode, outline, Player } from "./sound.js";
import { clock, number, t } from "./words.js";

const BARS = 160;
/** So that a thumb meets one window of a long clip and not three: they then scroll. */
const WINDOW_PX = 40;

/** An element that shows a clip with the windows of its document. Resolves once it is decoded. */
export async function recordingView(clip, { timeline = [], audio }) {
  const buffer = clip && (await decode(clip));
  const duration = buffer?.duration ?? audio.duration_s;
  const place = make("div", { class: "recording" });
  const strip = make("div", { class: "strip" });
  if (timeline.length) strip.style.minWidth = `${timeline.length * WINDOW_PX}px`;
  const head = make("span", { class: "head", hidden: "", "aria-hidden": "true" });
  const lit = make("span", { class: "lit", hidden: "", "aria-hidden": "true" });
  const player = buffer && new Player(buffer);
  let playing = null;

  const span = (element, start, end) => {
    element.style.left = `${(100 * start) / duration}%`;
    element.style.width = `${(100 * (end - start)) / duration}%`;
    element.hidden = false;
  };
  const play = (button, start, end) => {
    if (playing === button) {
      player.stop();
      return;
    }
    // Decoders differ by some milliseconds on where a clip ends.
    const from = Math.min(start, duration);
    player.play(from, Math.min(end, duration), (second) => {
      if (second === null) {
        for (const each of [head, lit]) each.hidden = true;
        playing?.removeAttribute("data-playing");
        playing = null;
        return;
      }
      if (playing !== button) {
        playing = button;
        button.setAttribute("data-playing", "");
        span(lit, start, end);
      }
      head.hidden = false;
      head.style.left = `${(100 * second) / duration}%`;
    });
  };

  if (buffer) strip.append(make("div", { class: "wave" }, lit, waveform(buffer), head));
  if (timeline.length) strip.append(windows(timeline, duration, player && play));
  const scroll = make("div", { class: "scroll" }, strip);
  if (buffer || timeline.length) place.append(scroll);
  if (timeline.length) place.append(make("p", { class: "hint" }, hint(player)));
  if (player) {
    const whole = make("button", { type: "button", class: "plain" }, t("timeline.whole"));
    whole.addEventListener("click", () => play(whole, 0, duration));
    place.append(whole);
  } else if (clip) {
    place.append(make("audio", { controls: "", src: URL.createObjectURL(clip) }));
  }
  return { element: place, stop: () => player?.stop() };
}

const hint = (player) => t(player ? "timeline.hint" : "timeline.mute");

function waveform(buffer) {
  const peaks = outline(buffer, BARS);
  const most = Math.max(...peaks, 0.02);
  const path = peaks
    .map((peak, place) => {
      const half = Math.max(0.6, (peak / most) * 22);
      return `M${place + 0.5} ${24 - half}V${24 + half}`;
    })
    .join("");
  return draw(
    "svg",
    { viewBox: `0 0 ${BARS} 48`, preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("path", { d: path }),
  );
}

/** A button a window, over the seconds around its middle; arrow keys go from one to the next. */
function windows(timeline, duration, play) {
  const group = make("div", { class: "windows", role: "group", "aria-label": t("timeline.title") });
  const middles = timeline.map((each) => (each.start_s + each.end_s) / 2);
  const buttons = timeline.map((each, place) => {
    const from = place ? (middles[place - 1] + middles[place]) / 2 : each.start_s;
    const last = place === timeline.length - 1;
    const to = last ? each.end_s : (middles[place] + middles[place + 1]) / 2;
    const button = make(
      "button",
      {
        type: "button",
        class: "window",
        tabindex: place ? -1 : 0,
        "aria-label": windowLabel(each),
        title: `${clock(each.start_s)}–${clock(each.end_s)} · ${each.accent.name}`,
        "aria-disabled": play ? null : "true",
      },
      make("span", { class: "fill", "aria-hidden": "true" }),
      make("span", { class: "value", "aria-hidden": "true" }, number(each.us_confidence)),
    );
    button.style.left = `${(100 * from) / duration}%`;
    button.style.width = `${(100 * (to - from)) / duration}%`;
    button.style.setProperty("--height", each.us_confidence / 100);
    if (play) button.addEventListener("click", () => play(button, each.start_s, each.end_s));
    return button;
  });
  group.append(...buttons);
  group.addEventListener("keydown", (event) => {
    const place = buttons.indexOf(event.target);
    const to = {
      ArrowRight: place + 1,
      ArrowLeft: place - 1,
      Home: 0,
      End: buttons.length - 1,
    }[event.key];
    if (place < 0 || !buttons[to]) return;
    event.preventDefault();
    for (const each of buttons) each.tabIndex = -1;
    buttons[to].tabIndex = 0;
    buttons[to].focus();
  });
  return group;
}

/** A window of the timeline as it is read out. */
function windowLabel({ start_s: start, end_s: end, us_confidence: score, accent }) {
  const values = { start: clock(start), end: clock(end), score: number(score), name: accent.name };
  return t("timeline.window", values);
}
