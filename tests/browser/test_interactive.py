"""The three figures that a reader can move: their numbers are those that Python computes, by keyboard alone."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page

from tests.browser.visit import Visit

NUMBER = r"([\d.e+-]+)"
TEMPERATURE_REPORT = re.compile(
    rf"τ = {NUMBER}, positive at {NUMBER} \(dashed\): its p is {NUMBER}\. The hardest negative, at 0\.55, "
    rf"has p = {NUMBER}, {NUMBER} % of the push, and a gradient in the cosine of p / τ = {NUMBER}\."
)
DIRECTIONS = {"ArrowLeft": (-1, 0), "ArrowRight": (1, 0), "ArrowUp": (0, -1), "ArrowDown": (0, 1)}


def data_of(page: Page, name: str) -> Any:
    """What the chapter's code wrote into the page for a figure."""
    return json.loads(page.locator(f"script#{name}-data").text_content())


def info_nce_at(temperature: float, positive: float) -> tuple[float, float, float, float]:
    """Of twenty negatives: p of the positive; p, share of the push in per cent and gradient of the hardest one."""
    cosines = torch.cat([torch.tensor([positive]), torch.linspace(-0.4, 0.55, 20)]).double().requires_grad_()
    p = (cosines / temperature).softmax(0)
    (gradient,) = torch.autograd.grad(-p[0].log(), cosines)
    p = p.detach()
    return float(p[0]), float(p[-1]), float(100 * p[-1] / p[1:].sum()), float(gradient[-1])


def check_temperature(page: Page) -> str:
    """Compare the report with InfoNCE at the sliders' values, and return it."""
    report = page.locator("#temperature-slider output").text_content()
    shown = [float(number) for number in TEMPERATURE_REPORT.fullmatch(report).groups()]
    temperature = 10 ** float(page.get_by_label("temperature τ").input_value())
    positive = float(page.get_by_label("cosine of the positive").input_value())
    p, hardest, share, gradient = info_nce_at(temperature, positive)
    assert shown[:2] == [pytest.approx(temperature, rel=0.05), positive]
    assert shown[2] == pytest.approx(p, abs=6e-4)
    assert shown[4] == pytest.approx(share, abs=0.6)
    assert [shown[3], shown[5]] == pytest.approx([hardest, gradient], rel=0.06)  # two digits
    return report


def test_temperature_moves_the_push(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, "04-contrastive-losses.html")
    page, reports = visited.page, []
    reports.append(check_temperature(page))
    for label, key in (
        ("temperature τ", "PageUp"),
        ("cosine of the positive", "ArrowRight"),
        ("temperature τ", "Home"),
    ):
        page.get_by_label(label).focus()
        page.keyboard.press(key)
        reports.append(check_temperature(page))
    assert len(set(reports)) == len(reports), f"a key changes nothing: {reports}"
    assert not visited.complaints


def neighbour(films: dict[str, list[Any]], start: int, direction: tuple[int, int]) -> int:
    """The closest film within 45 degrees of a direction, the first of equals; the start itself at the edge."""
    places = torch.tensor([films["x"], films["y"]]).T - torch.tensor([films["x"][start], films["y"][start]])  # (n, 2)
    ahead = places @ torch.tensor(direction)
    aside = (places @ torch.tensor(direction[::-1])).abs()
    distances = places.double().norm(dim=1).where((ahead > 0) & (aside <= ahead), torch.inf)
    return int(distances.argmin()) if distances.isfinite().any() else start


def check_film(page: Page, films: dict[str, list[Any]], chosen: int) -> None:
    """The map names the film, its nearest in all dimensions, and draws a line to each of them."""
    box = page.locator("#movie-map")
    assert box.locator("strong").text_content() == films["name"][chosen]
    assert box.locator("ol button").all_text_contents() == [films["name"][near] for near in films["near"][chosen]]
    ends = box.locator("svg line").evaluate_all(
        "lines => lines.map(line => [line.getAttribute('x2'), line.getAttribute('y2')].map(Number))"
    )
    assert ends == [[films["x"][near], films["y"][near]] for near in films["near"][chosen]]


def test_movie_map_finds_films_and_their_neighbours(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, "01-language-models.html")
    page, films = visited.page, data_of(visited.page, "movie-map")
    check_film(page, films, 0)
    chosen = len(films["name"]) // 2
    page.get_by_label("Find a film").fill(films["name"][chosen])
    check_film(page, films, chosen)
    page.locator("#movie-map svg").focus()
    for key, direction in DIRECTIONS.items():
        page.keyboard.press(key)
        chosen = neighbour(films, chosen, direction)
        check_film(page, films, chosen)
    page.locator("#movie-map ol button").nth(1).focus()
    page.keyboard.press("Enter")
    check_film(page, films, films["near"][chosen][1])
    genre = films["genres"][chosen][0]
    page.get_by_label("Fill a genre").select_option(genre)
    assert (
        page.locator("#movie-map circle[fill-opacity='0.9']").count() >= sum(genre in of for of in films["genres"]) - 1
    )
    assert not visited.complaints


def select(page: Page, label: str) -> Locator:
    """One of the choices above the two lists."""
    return page.locator("#recommendations").get_by_label(label, exact=True)


def check_lists(page: Page, document: dict[str, Any]) -> str:
    """Compare the report and both lists with the data of the chosen person and models, and return the report."""
    box = page.locator("#recommendations")
    person = document["people"][int(select(page, "person").input_value())]
    models = [int(select(page, f"{which} model").input_value()) for which in ("first", "second")]
    lists, ranks = ([person[key][model] for model in models] for key in ("lists", "ranks"))
    shared = set(lists[0]) & set(lists[1])
    report = box.locator("[aria-live]").text_content()
    assert report == (
        f"Shared: {len(shared)} of 10. The film watched next is number {ranks[0]} for {document['models'][models[0]]} "
        f"and number {ranks[1]} for {document['models'][models[1]]}."
    )
    for column, films in zip(box.locator("ol").all(), lists, strict=True):
        shown = column.locator("li").all_text_contents()
        assert [line.startswith(document["titles"][film]) for line, film in zip(shown, films, strict=True)] == [
            True
        ] * 10
        assert {film for line, film in zip(shown, films, strict=True) if "in both" in line} == shared
        assert [film for line, film in zip(shown, films, strict=True) if "watched next" in line] == [
            film for film in films if film == person["next"]
        ]
    return report


def test_recommendations_of_two_models_are_compared(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, "05-two-towers.html")
    page, document = visited.page, data_of(visited.page, "recommendations")
    reports = [check_lists(page, document)]
    for label, key in (("person", "ArrowDown"), ("first model", "ArrowDown"), ("second model", "Home")):
        select(page, label).focus()
        page.keyboard.press(key)
        reports.append(check_lists(page, document))
    assert len(set(reports)) == len(reports), f"a key changes nothing: {reports}"
    for number in range(len(document["people"])):
        select(page, "person").select_option(str(number))
        check_lists(page, document)
    assert not visited.complaints


@pytest.mark.parametrize(
    ("name", "box", "fallback"),
    [
        ("01-language-models.html", "movie-map", "#fig-ch01-map img"),
        ("04-contrastive-losses.html", "temperature-slider", "#fig-ch04-temperature img"),
        ("05-two-towers.html", "recommendations", ":has(> #sec-ch05-lists) table"),
    ],
)
def test_without_scripts_the_page_shows_a_still(
    visit: Callable[..., Visit], sites: dict[str, str], name: str, box: str, fallback: str
) -> None:
    page = visit(sites["file"], name, java_script_enabled=False).page
    assert page.locator(f"#{box}").inner_html() == ""
    still = page.locator(fallback)
    assert still.count() == 1
    assert still.bounding_box()["height"] > 100


def test_claims_are_filtered_and_sorted(visit: Callable[..., Visit], site: str) -> None:
    visited = visit(site, "claims.html")
    page, rows = visited.page, visited.page.locator("table.claims tbody tr")
    total = rows.count()
    shown = rows.locator("visible=true")
    page.get_by_label("verdict", exact=True).select_option("open")
    assert 0 < shown.count() < total
    assert page.locator(".claims-filters output").text_content() == f"{shown.count()} of {total} claims"
    assert all("open" in row.text_content() for row in shown.all())
    page.get_by_label("words").fill("no such words")
    assert shown.count() == 0
    page.get_by_label("words").fill("")
    page.get_by_label("verdict", exact=True).select_option("")
    for direction in (1, -1):
        page.get_by_role("button", name="Claim").click()
        claims = rows.locator("td:nth-child(2)").all_text_contents()
        assert claims == page.evaluate("words => words.toSorted((a, b) => a.localeCompare(b))", claims)[::direction]
    details = rows.locator("details").first
    details.locator("summary").click()
    assert details.locator("li").first.is_visible()
    assert not visited.complaints


def test_without_scripts_all_claims_are_shown(visit: Callable[..., Visit], sites: dict[str, str]) -> None:
    page = visit(sites["file"], "claims.html", java_script_enabled=False).page
    rows = page.locator("table.claims tbody tr")
    assert rows.count() == rows.locator("visible=true").count() > 60
    assert page.locator(".claims-filters").count() == 0
