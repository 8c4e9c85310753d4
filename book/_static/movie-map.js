/* Chapter 1: the map of films, to be searched, hovered and walked by arrow keys. Without JavaScript the static figure stands. */
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIZE = 1000; // the data's coordinates run from 0 to SIZE
  const MARGIN = 15;
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function add(parent, name, attributes = {}, text = "", namespace = null) {
    const element = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return parent.appendChild(element);
  }

  /* The closest film within 45 degrees of a direction, or the film itself at the edge of the map. */
  function step(films, from, [dx, dy]) {
    let best = from;
    let least = Infinity;
    films.forEach((film, number) => {
      const [x, y] = [film.x - films[from].x, film.y - films[from].y];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      const distance = Math.hypot(x, y);
      if (ahead > 0 && aside <= ahead && distance < least) {
        [best, least] = [number, distance];
      }
    });
    return best;
  }

  function build(box, films) {
    box.style.marginBottom = "1.5rem";
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Map of films");

    const tools = add(box, "div");
    add(tools, "label", { for: "movie-map-search" }, "Find a film ");
    const search = add(tools, "input", { id: "movie-map-search", list: "movie-map-titles", autocomplete: "off" });
    const titles = add(tools, "datalist", { id: "movie-map-titles" });
    films.forEach((film) => add(titles, "option", { value: film.name }));
    add(tools, "label", { for: "movie-map-genre", style: "margin-left: 1rem" }, "Fill a genre ");
    const genre = add(tools, "select", { id: "movie-map-genre" });
    const genres = [...new Set(films.flatMap((film) => film.genres))].sort();
    add(genre, "option", { value: "" }, "none");
    genres.forEach((name) => add(genre, "option", { value: name }, name));

    const svg = add(
      box,
      "svg",
      {
        viewBox: `${-MARGIN} ${-MARGIN} ${SIZE + 2 * MARGIN} ${SIZE + 2 * MARGIN}`,
        style: "width: 100%; max-width: 44rem; display: block",
        tabindex: 0,
        role: "application",
        "aria-label": "Films as points; arrow keys move to the next film in that direction",
      },
      "",
      SVG,
    );
    const links = add(svg, "g", { stroke: "currentColor", "stroke-width": 2 }, "", SVG);
    const points = films.map((film, number) =>
      add(svg, "circle", { cx: film.x, cy: film.y, r: 5, stroke: "currentColor", "data-film": number }, "", SVG),
    );
    const report = add(box, "div", { "aria-live": "polite" });
    const heading = add(report, "strong");
    const details = add(report, "span");
    const near = add(report, "ol");
    let chosen = 0;

    function paint() {
      points.forEach((point, number) => {
        const filled = genre.value !== "" && films[number].genres.includes(genre.value);
        point.setAttribute("fill", "currentColor");
        point.setAttribute("fill-opacity", filled ? 0.9 : 0.08);
        point.setAttribute("stroke-opacity", filled ? 1 : 0.35);
      });
      points[chosen].setAttribute("fill-opacity", 1);
      points[chosen].setAttribute("stroke-opacity", 1);
    }

    function choose(number) {
      points[chosen].setAttribute("r", 5);
      chosen = number;
      const film = films[number];
      points[number].setAttribute("r", 12);
      svg.appendChild(points[number]); // on top of its neighbours
      links.replaceChildren();
      near.replaceChildren();
      heading.textContent = film.name;
      details.textContent = ` ${film.genres.join(", ")}. Nearest in all dimensions:`;
      film.near.forEach((other) => {
        add(links, "line", { x1: film.x, y1: film.y, x2: films[other].x, y2: films[other].y }, "", SVG);
        const button = add(add(near, "li"), "button", { type: "button" }, films[other].name);
        button.addEventListener("click", () => {
          choose(other);
          near.querySelector("button").focus(); // the pressed button is gone
        });
      });
      paint();
    }

    svg.addEventListener("pointerover", (event) => {
      if (event.target.dataset.film !== undefined && Number(event.target.dataset.film) !== chosen) {
        choose(Number(event.target.dataset.film));
      }
    });
    svg.addEventListener("keydown", (event) => {
      if (ARROWS[event.key]) {
        event.preventDefault();
        choose(step(films, chosen, ARROWS[event.key]));
      }
    });
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      const exact = films.findIndex((film) => film.name.toLowerCase() === wanted);
      const start = films.findIndex((film) => film.name.toLowerCase().startsWith(wanted));
      if (wanted !== "" && Math.max(exact, start) >= 0) {
        choose(exact >= 0 ? exact : start);
      }
    });
    genre.addEventListener("change", paint);
    choose(0);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const box = document.getElementById("movie-map");
    const data = document.getElementById("movie-map-data");
    if (box && data) {
      const { x, y, name, genres, near } = JSON.parse(data.textContent);
      build(box, name.map((title, n) => ({ name: title, x: x[n], y: y[n], genres: genres[n], near: near[n] })));
    }
  });
})();
