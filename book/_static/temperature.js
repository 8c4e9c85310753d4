/* Chapter 4: sliders for the temperature and the positive. Without JavaScript the static figure says the same. */
"use strict";

(() => {
  const NEGATIVES = Array.from({ length: 20 }, (_, k) => -0.4 + (0.95 * k) / 19);
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 640;
  const HEIGHT = 180;
  const BASE = 150; // where the bars stand

  function add(parent, name, attributes = {}, text = "", namespace = null) {
    const element = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return parent.appendChild(element);
  }

  function slider(parent, id, label, range) {
    const line = add(parent, "div");
    add(line, "label", { for: id }, label).style.display = "inline-block";
    line.firstChild.style.minWidth = "18rem";
    const input = add(line, "input", { id, type: "range", ...range });
    input.style.width = "20rem";
    input.style.maxWidth = "100%";
    return input;
  }

  /* Softmax over the positive and the negatives, the largest score taken out first. */
  function probabilities(positive, temperature) {
    const scores = [positive, ...NEGATIVES].map((cosine) => cosine / temperature);
    const top = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - top));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights.map((weight) => weight / total);
  }

  function build(box) {
    box.style.marginBottom = "1.5rem";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "How the temperature shares the push among twenty negatives");
    const heat = slider(box, "tau", "temperature τ, 0.005 to 5", { min: -2.3, max: 0.7, step: 0.01, value: -1 });
    const lead = slider(box, "positive", "cosine of the positive, 0.3 to 0.9", {
      min: 0.3,
      max: 0.9,
      step: 0.01,
      value: 0.6,
    });
    const svg = add(box, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: "100%", role: "img" }, "", SVG);
    const place = (cosine) => 30 + ((cosine + 0.5) / 1.5) * (WIDTH - 60);
    const bars = NEGATIVES.map((cosine) =>
      add(svg, "rect", { x: place(cosine) - 8, width: 16, fill: "currentColor", "fill-opacity": 0.6 }, "", SVG),
    );
    const mark = add(svg, "line", { y1: 0, y2: BASE, stroke: "currentColor", "stroke-dasharray": "4 4" }, "", SVG);
    add(svg, "line", { x1: 0, x2: WIDTH, y1: BASE, y2: BASE, stroke: "currentColor" }, "", SVG);
    [-0.4, 0, 0.4, 0.8].forEach((cosine) => {
      const style = { x: place(cosine), y: BASE + 18, "text-anchor": "middle", fill: "currentColor", "font-size": 13 };
      add(svg, "text", style, cosine.toFixed(1), SVG);
    });
    const report = add(box, "output", { "aria-live": "polite", for: "tau positive" });

    function draw() {
      const temperature = 10 ** Number(heat.value);
      const positive = Number(lead.value);
      const [own, ...others] = probabilities(positive, temperature);
      const push = others.reduce((sum, p) => sum + p, 0);
      const shares = others.map((p) => (push > 0 ? p / push : 0));
      bars.forEach((bar, k) => {
        bar.setAttribute("height", BASE * shares[k]);
        bar.setAttribute("y", BASE * (1 - shares[k]));
      });
      mark.setAttribute("x1", place(positive));
      mark.setAttribute("x2", place(positive));
      const hardest = others[others.length - 1];
      heat.setAttribute("aria-valuetext", temperature.toPrecision(2));
      report.textContent =
        `τ = ${temperature.toPrecision(2)}, positive at ${positive.toFixed(2)} (dashed): its p is ${own.toFixed(3)}. ` +
        `The hardest negative, at 0.55, has p = ${hardest.toPrecision(2)}, ` +
        `${(100 * shares[shares.length - 1]).toFixed(0)} % of the push, ` +
        `and a gradient in the cosine of p / τ = ${(hardest / temperature).toPrecision(2)}.`;
      svg.setAttribute("aria-label", report.textContent);
    }

    [heat, lead].forEach((input) => input.addEventListener("input", draw));
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const box = document.getElementById("temperature-slider");
    if (box) {
      build(box);
    }
  });
})();
