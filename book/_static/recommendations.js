/* Chapter 5: one person's recommendations under two models. Without JavaScript the table of the page stands. */
"use strict";

(() => {
  function add(parent, name, attributes = {}, text = "") {
    const element = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return parent.appendChild(element);
  }

  function choice(parent, id, label, names, chosen) {
    const line = add(parent, "div", { style: "margin: 0.3rem 0" });
    add(line, "label", { for: id, style: "display: inline-block; min-width: 8rem" }, label);
    const select = add(line, "select", { id, style: "max-width: 100%" });
    names.forEach((name, number) => add(select, "option", { value: number }, name));
    select.value = chosen;
    return select;
  }

  function build(box, { titles, models, people }) {
    box.style.marginBottom = "1.5rem";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Recommendations of two models for one person");
    const person = choice(
      box,
      "recommendations-person",
      "person",
      people.map(({ events }, number) => `${number + 1}, with ${events} films`),
      0,
    );
    const selects = [0, 3].map((model, side) =>
      choice(box, `recommendations-model-${side + 1}`, `${side ? "second" : "first"} model`, models, model),
    );
    const past = add(box, "p");
    const report = add(box, "p", { "aria-live": "polite" });
    const lists = add(box, "div", { style: "display: flex; flex-wrap: wrap; gap: 1rem" });

    function show(list, other, next, name) {
      const column = add(lists, "div", { style: "flex: 1 1 15rem; min-width: 0" });
      add(column, "strong", {}, name);
      const items = add(column, "ol");
      list.forEach((film) => {
        const marks = [film === next ? "watched next" : "", other.includes(film) ? "in both" : ""].filter(Boolean);
        const item = add(items, "li", {}, titles[film]);
        if (marks.length > 0) {
          item.style.fontWeight = "bold";
          item.append(` (${marks.join(", ")})`);
        }
      });
    }

    function draw() {
      const { history, next, lists: tops, ranks } = people[Number(person.value)];
      const [first, second] = selects.map((select) => Number(select.value));
      const shared = tops[first].filter((film) => tops[second].includes(film)).length;
      past.textContent = `Seen last: ${history.map((film) => titles[film]).join("; ")}. Watched next: ${titles[next]}.`;
      report.textContent =
        `Shared: ${shared} of ${tops[first].length}. The film watched next is number ${ranks[first]} for ` +
        `${models[first]} and number ${ranks[second]} for ${models[second]}.`;
      lists.replaceChildren();
      show(tops[first], tops[second], next, models[first]);
      show(tops[second], tops[first], next, models[second]);
    }

    [person, ...selects].forEach((select) => select.addEventListener("change", draw));
    draw();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const box = document.getElementById("recommendations");
    const data = document.getElementById("recommendations-data");
    if (box && data) {
      build(box, JSON.parse(data.textContent));
    }
  });
})();
