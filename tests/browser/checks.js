/* What checks.py asks of a page. Each function returns plain data. */

/* An element for a message: the nearest id above it, its tag and classes, its source, the start of its text. */
function name(element) {
  const section = element.parentElement?.closest("[id]");
  const classes = (element.getAttribute("class") ?? "").split(/\s+/).filter(Boolean);
  const tag = element.tagName.toLowerCase() + (element.id ? `#${element.id}` : "");
  const text = (element.textContent ?? "").trim().replace(/\s+/g, " ").slice(0, 60);
  const parts = [section && `#${section.id}`, `<${[tag, ...classes].join(".")}>`, element.getAttribute("src"), text];
  return parts.filter(Boolean).join(" ");
}

function equations() {
  const found = [...(window.MathJax?.startup?.document?.math ?? [])];
  const sources = new Map(found.map((item) => [item.typesetRoot, item.math]));
  const problems = [];
  for (const node of document.querySelectorAll(".math")) {
    const made = node.querySelectorAll("mjx-container");
    if (made.length === 0) problems.push(`equation not typeset: ${name(node)}`);
    for (const root of made) {
      // MathJax shows an unknown command in red, and everything else that it cannot read as an error.
      if (root.querySelector("mjx-merror, [data-mjx-error], mjx-mtext[style*='red']"))
        problems.push(`equation with an error: ${sources.get(root)} in ${name(node)}`);
    }
  }
  return problems;
}

function images() {
  const unloaded = [...document.images].filter((image) => !(image.complete && image.naturalWidth > 0));
  const silent = [...document.images].filter((image) => !image.alt.trim());
  return [
    ...unloaded.map((image) => `image not loaded: ${name(image)}`),
    ...silent.map((image) => `image without alt text: ${name(image)}`),
  ];
}

/* The innermost elements that reach beyond the window, except those that scroll in a box. */
function overflow() {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const right = (element) => Math.round(element.getBoundingClientRect().right);
  const boxed = (element) =>
    element !== document.body && (getComputedStyle(element).overflowX !== "visible" || boxed(element.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter(
    (element) => right(element) > width && !boxed(element.parentElement),
  );
  const inner = wide.filter((element) => !wide.some((other) => other !== element && element.contains(other)));
  return inner.slice(0, 5).map((element) => `reaches ${right(element)} px: ${name(element)}`);
}

/* Equations and coloured code have thousands of elements that differ in nothing which axe looks at, and its time grows
   faster than their number. An equation is judged as a few letters. Of all texts that have the same colours, size and
   weight in both themes the first is kept, in `examples`, for the rules about colours; the other spans of code are
   dissolved. */
function thinOut() {
  document.querySelectorAll("mjx-container").forEach((made) => made.replaceChildren("x + y"));
  const texts = [...document.querySelectorAll("body *")].filter(
    (element) =>
      element.checkVisibility() &&
      [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()),
  );
  const grounds = new Map();
  const ground = (element) => {
    if (!element) return "";
    if (!grounds.has(element)) {
      const { backgroundColor, backgroundImage, opacity } = getComputedStyle(element);
      const plain = backgroundColor === "rgba(0, 0, 0, 0)" && backgroundImage === "none" && opacity === "1";
      const above = ground(element.parentElement);
      grounds.set(element, plain ? above : `${above} ${backgroundColor} ${backgroundImage} ${opacity}`);
    }
    return grounds.get(element);
  };
  const look = (element) => {
    const { color, fontSize, fontWeight, textDecorationLine } = getComputedStyle(element);
    return [color, fontSize, fontWeight, textDecorationLine, ground(element)].join(" ");
  };
  const root = document.documentElement;
  const shown = root.dataset.theme;
  const looks = texts.map(() => "");
  for (const theme of ["light", "dark"]) {
    root.dataset.theme = theme;
    grounds.clear();
    texts.forEach((element, index) => (looks[index] += look(element)));
  }
  root.dataset.theme = shown;
  const first = new Map([...texts.entries()].reverse().map(([index, element]) => [looks[index], element]));
  window.examples = [...first.values()];
  const kept = new Set(window.examples);
  for (const span of document.querySelectorAll("pre span")) if (!kept.has(span)) span.replaceWith(...span.childNodes);
}

/* Where the focus is, and whether a reader sees it: a ring around the element, its parts or what holds it. */
function focus() {
  const element = document.activeElement;
  if (element === document.body) return { place: "end" };
  const ringed = (part, pseudo) => {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(part, pseudo);
    return (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || boxShadow !== "none";
  };
  const around = [element.parentElement, element, ...element.querySelectorAll("*")];
  const { width, bottom } = element.getBoundingClientRect();
  const places = {
    "skip link": ".skip-link",
    content: "article, .bd-search-container",
    search: ".search-button__button, .bd-search",
    navigation: "nav.bd-links",
  };
  return {
    name: name(element),
    place: Object.keys(places).find((place) => element.closest(places[place])) ?? "elsewhere",
    seen: width > 0 && bottom > 0 && around.some((part) => ringed(part, null) || ringed(part, "::before")),
  };
}

/* Whether the box of a handle is closed. */
function folded(handle) {
  const details = handle.closest("details");
  return details ? !details.open : handle.closest(".toggle").classList.contains("toggle-hidden");
}

/* Bring everything that moves or fades to its end. */
function settle() {
  const passing = document.getAnimations().filter((animation) => animation.effect.getComputedTiming().endTime < Infinity);
  passing.forEach((animation) => animation.finish());
}
