/* The page's words in the language that its reader chose. */

export const LANGUAGES = ["en", "id"];
const KEPT_AS = "language";
let strings = {};
let current = "en";

/** The language chosen before, or else the first that the browser asks for and the page has. */
export function preferred() {
  const asked = [read(), ...(navigator.languages || [])].filter(Boolean);
  // Browsers of some Android phones still call Indonesian by its old code.
  const known = asked.map((each) => each.slice(0, 2).toLowerCase().replace("in", "id"));
  return known.find((each) => LANGUAGES.includes(each)) || "en";
}

export const language = () => current;

/** Loads a language and puts its words into the document. */
export async function use(chosen) {
  const answer = await fetch(new URL(`./strings/${chosen}.json`, import.meta.url));
  if (!answer.ok) throw new Error(`no strings: ${answer.status}`);
  strings = await answer.json();
  current = chosen;
  document.documentElement.lang = chosen;
  for (const each of document.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of document.querySelectorAll("[data-t-label]"))
    each.setAttribute("aria-label", t(each.dataset.tLabel));
}

export function keep(chosen) {
  try {
    localStorage.setItem(KEPT_AS, chosen);
  } catch {
    // Without storage the choice holds until the page is closed.
  }
}

/** The words for a key, with `{name}` replaced by the value of that name. */
export function t(key, values = {}) {
  return (strings[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const has = (key) => key in strings;

export function number(value, digits = 0) {
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(current, options).format(value);
}

export const percent = (share) =>
  new Intl.NumberFormat(current, { style: "percent", maximumFractionDigits: 0 }).format(share);

export function moment(at) {
  return new Intl.DateTimeFormat(current, { dateStyle: "medium", timeStyle: "short" }).format(at);
}

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function read() {
  try {
    return localStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}
