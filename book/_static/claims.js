/* Claims ledger: filters and sorting. Without JavaScript the whole table is shown. */
"use strict";

(() => {
  function add(parent, name, attributes = {}, text = "") {
    const element = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return parent.appendChild(element);
  }

  function choice(parent, rows, key, label) {
    add(parent, "label", { for: `claims-${key}` }, label);
    const select = add(parent, "select", { id: `claims-${key}` });
    add(select, "option", { value: "" }, "all");
    [...new Set(rows.map((row) => row.dataset[key]))].forEach((value) => add(select, "option", { value }, value));
    return select;
  }

  function build(table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const box = document.createElement("div");
    box.className = "claims-filters";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Filter the claims");
    table.before(box);
    const verdict = choice(box, rows, "verdict", "verdict");
    const topic = choice(box, rows, "topic", "topic");
    add(box, "label", { for: "claims-words" }, "words");
    const words = add(box, "input", { id: "claims-words", type: "search" });
    const count = add(box, "output");

    function filter() {
      const wanted = words.value.toLowerCase();
      rows.forEach((row) => {
        const fits = [verdict, topic].every((select, k) => !select.value || row.dataset[k ? "topic" : "verdict"] === select.value);
        row.hidden = !(fits && row.textContent.toLowerCase().includes(wanted));
      });
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
    }

    function sort(column, header) {
      const falling = header.getAttribute("aria-sort") === "ascending";
      const text = (row) => row.cells[column].textContent;
      const order = [...rows].sort((a, b) => text(a).localeCompare(text(b)) * (falling ? -1 : 1));
      [...table.tHead.rows[0].cells].forEach((cell) => cell.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      body.append(...order);
    }

    [...table.tHead.rows[0].cells].slice(0, 2).forEach((header, column) => {
      const name = header.textContent;
      header.textContent = "";
      add(header, "button", { type: "button" }, name).addEventListener("click", () => sort(column, header));
    });
    [verdict, topic, words].forEach((control) => control.addEventListener("input", filter));
    filter();
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("table.claims[data-filters]").forEach(build));
})();
