/* The whole answer to a clip, as people read it. */

import { draw, make } from "./dom.js";
import { number, percent, t } from "./words.js";

const BANDS = ["far", "noticeable", "between", "close", "very_close"];
const SHOWN_ACCENTS = 5;
/** Models with fewer labels than this know groups of voices, not accents. */
const MANY_LABELS = 8;

/**
 * Fills `place` with the document of an attempt. `recording` is what shows its sound, or null;
 * `before` the attempt before it, or null; words of the server are in `language`.
 */
export function showResult(place, { document, language }, recording, before) {
  place.replaceChildren(
    headline(document, language),
    ...[compared(document, before)].filter(Boolean),
    section("result.recording", recording, advice(document.audio, language)),
    section("result.accents", accents(document.accents, language)),
    section("result.limits", limits(document.model, language)),
  );
}

function headline(document, language) {
  const { band, certainty, range } = document;
  const step = BANDS.indexOf(band.id) + 1;
  const steps = BANDS.length;
  return make(
    "div",
    { class: "headline" },
    make("p", { class: "eyebrow" }, t("result.title")),
    make(
      "p",
      { class: "score" },
      make("span", { class: "figure" }, number(document.us_confidence, 1)),
      make("span", { class: "of" }, t("result.of")),
    ),
    make("h2", { id: "result-title", lang: language }, band.label),
    step ? make("p", { class: "steps-of" }, pips(step), t("result.band", { step, steps })) : null,
    ruler(document.us_confidence, range),
    make("p", { lang: language }, band.meaning),
    certainty && certainty.id !== "clear"
      ? make("p", { class: "callout", lang: language }, certainty.message)
      : null,
    range
      ? make("p", {}, t("result.range", { low: number(range.low), high: number(range.high) }))
      : null,
  );
}

/** The band as one of five, for the eye. */
function pips(step) {
  const each = BANDS.map((_, place) =>
    draw("rect", {
      class: place < step ? "full" : null,
      x: 0.5 + place * 17,
      y: 0.5,
      width: 14,
      height: 9,
      rx: 3,
    }),
  );
  return draw("svg", { class: "pips", viewBox: "0 0 84 10", "aria-hidden": "true" }, each);
}

/** The number as a mark on a rule from 0 to 100, over the range that it moves in. */
function ruler(score, range) {
  const x = (value) => 8 + value * 3.04;
  const ticks = [];
  for (let value = 0; value <= 100; value += 5) {
    const height = value % 25 ? 5 : 11;
    ticks.push(draw("line", { class: "tick", x1: x(value), x2: x(value), y1: 34, y2: 34 - height }));
  }
  const label = (value) => draw("text", { x: x(value), y: 50, "text-anchor": "middle" }, `${value}`);
  return draw(
    "svg",
    { class: "ruler", viewBox: "0 0 320 54", "aria-hidden": "true" },
    draw("line", { class: "base", x1: x(0), x2: x(100), y1: 34, y2: 34 }),
    ...ticks,
    ...[0, 25, 50, 75, 100].map(label),
    range
      ? draw("rect", {
          class: "range",
          x: x(range.low),
          y: 15,
          width: Math.max(4, x(range.high) - x(range.low)),
          height: 8,
          rx: 4,
        })
      : null,
    draw("circle", { class: "mark", cx: x(score), cy: 19, r: 8 }),
  );
}

/** What changed since the attempt before, no more than the ranges let anyone say. */
function compared(document, before) {
  if (!before) return null;
  const old = before.document;
  const values = {
    before: number(old.us_confidence, 1),
    now: number(document.us_confidence, 1),
  };
  if (old.model.name !== document.model.name || old.model.version !== document.model.version) {
    return make("p", { class: "compared" }, t("compare.other_model", values));
  }
  const [one, other] = [old, document].map(
    ({ range, us_confidence: score }) => range ?? { low: score - 5, high: score + 5 },
  );
  const overlap = one.low <= other.high && other.low <= one.high;
  const higher = document.us_confidence > old.us_confidence;
  const key = overlap ? "compare.same" : higher ? "compare.higher" : "compare.lower";
  return make("p", { class: "compared" }, t(key, values));
}

function advice(audio, language) {
  const facts = [
    t("audio.duration", { value: number(audio.duration_s, 1) }),
    t("audio.speech", { value: number(audio.speech_s, 1) }),
    t("audio.level", { value: number(audio.level_dbfs) }),
    t("audio.peak", { value: number(audio.peak_dbfs) }),
    `${number(audio.sample_rate_hz / 1000, audio.sample_rate_hz % 1000 ? 1 : 0)} kHz`,
    t(audio.channels === 1 ? "audio.mono" : "audio.channels", { value: audio.channels }),
    audio.codec,
  ];
  return [
    audio.advice.length
      ? make(
          "ul",
          { class: "advice" },
          audio.advice.map(({ message }) => make("li", { lang: language }, message)),
        )
      : make("p", { class: "fine" }, t("audio.fine")),
    make("p", { class: "facts" }, facts.join(" · ")),
  ];
}

function accents(all, language) {
  const row = ({ label, name, score }) => {
    const bar = make("span", { class: label === "us" ? "bar us" : "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", score);
    return make(
      "li",
      {},
      make("span", { class: "name", lang: language }, name),
      make("span", { class: "share" }, percent(score)),
      bar,
    );
  };
  const rest = all.slice(SHOWN_ACCENTS);
  return [
    make("ol", { class: "accents" }, all.slice(0, SHOWN_ACCENTS).map(row)),
    rest.length
      ? make(
          "details",
          {},
          make("summary", {}, t("more", { count: rest.length })),
          make("ol", { class: "accents", start: SHOWN_ACCENTS + 1 }, rest.map(row)),
        )
      : null,
  ];
}

function limits(model, language) {
  const known = model.labels.length;
  return [
    make(
      "ul",
      { class: "limits" },
      make("li", {}, t(known >= MANY_LABELS ? "limits.first" : "limits.groups", { count: known })),
      make("li", {}, t("limits.understood")),
      make("li", {}, t("limits.machine")),
    ),
    make(
      "p",
      { class: "model" },
      make("span", {}, t("model.said", { name: model.name, version: model.version })),
      " ",
      make("span", { lang: language }, model.worth),
    ),
    model.notice ? make("p", { class: "callout", lang: language }, model.notice) : null,
  ];
}

function section(title, ...content) {
  return make("section", { class: "part" }, make("h3", {}, t(title)), ...content.flat());
}
