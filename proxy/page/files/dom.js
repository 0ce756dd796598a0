/* Elements made one by one: the page's policy forbids to write them as HTML. */

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An HTML element. Properties that are no property of it become attributes; null ones are left out. */
export function make(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** An element of an SVG drawing. */
export function draw(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

export function show(element, visible) {
  element.hidden = !visible;
}

/** Gives the focus to what was just shown, so that a screen reader and the keyboard go on there. */
export function focusOn(element) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  element.focus({ preventScroll: true });
  const { top } = element.getBoundingClientRect();
  // Beside the recording, on a wide screen, it is in sight already.
  if (top < 0 || top > innerHeight / 3)
    element.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
