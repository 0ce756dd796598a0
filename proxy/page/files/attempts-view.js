/* Attempts over time: a chart, a list that opens them, and the end of them. */

import { draw, make } from "./dom.js";
import { moment, number, t } from "./words.js";

const SHOWN = 30;
const LISTED = 5;
const HEIGHT = 132;
const TOP = 12;
const BOTTOM = 112;
const EDGE = 30;

const served = ({ document }) => `${document.model.name} ${document.model.version}`;

/** Fills `place`. `onOpen(attempt)` and `onForget()` are called for what a reader chooses. */
export function showAttempts(place, all, chosen, { onOpen, onForget }) {
  const shown = all.slice(-SHOWN);
  const newest = [...shown].reverse();
  const list = (some) =>
    make(
      "ol",
      { class: "attempt-list" },
      some.map((each) => entry(each, each.id === chosen, onOpen)),
    );
  place.replaceChildren(
    make("h2", { id: "attempts-title" }, t("attempts.title")),
    ...(shown.length > 1 ? [chart(shown, chosen, place.clientWidth || 320)] : []),
    list(newest.slice(0, LISTED)),
    newest.length > LISTED
      ? make(
          "details",
          {},
          make("summary", {}, t("more", { count: newest.length - LISTED })),
          list(newest.slice(LISTED)),
        )
      : "",
    make("p", { class: "note" }, t("attempts.private")),
    make("button", { type: "button", class: "plain danger", onclick: onForget }, t("attempts.forget")),
  );
}

function entry(attempt, chosen, onOpen) {
  const { document, language, at, sentence } = attempt;
  return make(
    "li",
    {},
    make(
      "button",
      {
        type: "button",
        class: "attempt",
        "aria-current": chosen ? "true" : null,
        onclick: () => onOpen(attempt),
      },
      make("span", { class: "attempt-score" }, number(document.us_confidence, 1)),
      make("span", { class: "attempt-band", lang: language }, document.band.label),
      make("span", { class: "attempt-when" }, `${moment(at)} · ${served(attempt)}`),
      sentence ? make("span", { class: "attempt-sentence", lang: "en" }, sentence) : null,
    ),
  );
}

/** Scores with their ranges from left to right; a dashed line where another model began to answer. */
function chart(shown, chosen, width) {
  const x = (place) => EDGE + ((width - EDGE - 12) * (place + 0.5)) / shown.length;
  const y = (score) => BOTTOM - ((BOTTOM - TOP) * score) / 100;
  const grid = [0, 50, 100].flatMap((score) => [
    draw("line", { class: "grid", x1: EDGE, x2: width, y1: y(score), y2: y(score) }),
    draw("text", { x: EDGE - 6, y: y(score) + 4, "text-anchor": "end" }, `${score}`),
  ]);
  const changes = shown.flatMap((each, place) => {
    if (!place || served(each) === served(shown[place - 1])) return [];
    const at = (x(place) + x(place - 1)) / 2;
    const right = at > width * 0.6;
    return [
      draw("line", { class: "change", x1: at, x2: at, y1: 2, y2: BOTTOM }),
      draw(
        "text",
        { class: "change-name", x: at + (right ? -4 : 4), y: HEIGHT - 4, "text-anchor": right ? "end" : "start" },
        served(each),
      ),
    ];
  });
  const ranges = shown.map(({ document: { range } }, place) =>
    range
      ? draw("line", {
          class: "spread",
          x1: x(place),
          x2: x(place),
          y1: y(range.low),
          y2: y(range.high),
        })
      : null,
  );
  const line = shown.map(({ document }, place) => `${x(place)},${y(document.us_confidence)}`);
  const dots = shown.map(({ id, document }, place) =>
    draw("circle", {
      class: id === chosen ? "point chosen" : "point",
      cx: x(place),
      cy: y(document.us_confidence),
      r: id === chosen ? 6 : 4,
    }),
  );
  const changed = changes.length ? ` ${t("attempts.changed")}` : "";
  const first = number(shown[0].document.us_confidence, 1);
  const last = number(shown.at(-1).document.us_confidence, 1);
  return draw(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${width} ${HEIGHT}`,
      role: "img",
      "aria-label": t("attempts.chart", { count: shown.length, first, last }) + changed,
    },
    grid,
    changes,
    ranges,
    draw("polyline", { class: "line", points: line.join(" ") }),
    dots,
  );
}
