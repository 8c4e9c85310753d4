"""MovieLens: one result from every layout, folder or zip, and the real 100K and 1M as published."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recsys_cl import assets
from recsys_cl.data import Interactions, load_movielens
from recsys_cl.data.movielens import _ITEM_IDS_1M, GENRES, _article_first
from recsys_cl.errors import InputError

FILMS = [  # title, year, genres
    ("Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
    ("Usual Suspects, The", "1995", ["Crime", "Thriller"]),
    ("Misérables, Les", "1995", ["Drama", "Musical"]),
    ("Good Morning", "1971", ["unknown"]),
    ("Wallace & Gromit: 2", "", ["Animation", "Film-Noir"]),
]
EVENTS = [(7, 3, 4, 881250949), (196, 1, 3, 881250949), (7, 1, 5, 881250950), (22, 4, 1, 878887116), (7, 5, 2, 9)]
USERS = [(7, 24, "M", "none", "85711"), (22, 53, "F", "other", "T8H1N"), (196, 33, "M", "writer", "02215")]


def _lines(rows: list[tuple], separator: str) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def official() -> dict[str, bytes]:
    films = [
        (number, f"{title} ({year})" if year else title, "01-Jan-1995" if year else "", "", "http://imdb", *flags)
        for number, (title, year, genres) in enumerate(FILMS, start=1)
        for flags in [[int(genre in genres) for genre in GENRES]]
    ]
    return {
        "u.data": _lines(EVENTS, "\t").encode(),
        "u.item": _lines(films, "|").encode("latin-1"),
        "u.user": _lines(USERS, "|").encode(),
    }


def atomic() -> dict[str, bytes]:
    films = [(number, title, year, " ".join(genres)) for number, (title, year, genres) in enumerate(FILMS, start=1)]
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + _lines(EVENTS, "\t")
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + _lines(films, "\t")
    user = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n" + _lines(USERS, "\t")
    return {"ml-100k.inter": inter.encode(), "ml-100k.item": item.encode(), "ml-100k.user": user.encode()}


def one_million() -> dict[str, bytes]:
    films = [
        (1, "Toy Story (1995)", "Animation|Children's|Comedy"),
        (30, "City of Lost Children, The (1995)", "Adventure|Sci-Fi"),
        (2, "Misérables, Les (1995)", "Drama"),
    ]
    return {
        "ratings.dat": _lines([(1, 30, 5, 978300760), (1, 1, 4, 978300761), (2, 1, 3, 978300760)], "::").encode(),
        "movies.dat": _lines(films, "::").encode("latin-1"),
        "users.dat": _lines([(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072")], "::").encode(),
    }


def whole_million() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """One content in both layouts, with every film, since in the second only the order of the films tells their ids."""
    printed = {number: (f"Film {number}, A (1990)", "Drama|War") for number in _ITEM_IDS_1M}
    printed[73], printed[1873] = ("Misérables, Les (1995)", "Drama|Musical"), ("Misérables, Les (1998)", "Drama")
    events = [(2, 3952, 5, 978300760), (2, 73, 4, 978300761), (1, 1873, 3, 978300760), (1, 1001, 2, 9)]
    users = [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072")]
    printed[1001] = ("Associate, The (L'Associe)(1982)", "Comedy")
    official = {
        "ratings.dat": _lines(events, "::").encode(),
        "movies.dat": _lines([(number, *film) for number, film in printed.items()], "::").encode("latin-1"),
        "users.dat": _lines(users, "::").encode(),
    }
    printed[1001] = ("Associate, The (L'Associe (1982)", "Comedy")  # as the distribution spells it
    named = [(f"1m_{user}", printed[item][0], *rest) for user, item, *rest in events]
    films = [(title, title[:-7], title[-5:-1], genres.replace("|", " ")) for title, genres in printed.values()]
    people = [(f"1m_{user}", age, gender, *rest) for user, gender, age, *rest in users]
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + _lines(named, "\t")
    item = "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token\n" + _lines(films, "\t")
    user = "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token\n" + _lines(people, "\t")
    return official, {"ml-1m.inter": inter.encode(), "ml-1m.item": item.encode(), "ml-1m.user": user.encode()}


def twenty_million() -> dict[str, bytes]:
    films = [
        (1, "Toy Story (1995)", "Animation|Comedy"),
        (2, '"American President, The (1995)"', "Comedy|Romance"),
        (29, "Amélie (2001)", "(no genres listed)"),
        (31, "Babylon 5", "Sci-Fi"),
    ]
    ratings = [(1, 29, 3.5, 1112486027), (1, 2, 4.0, 1112486027), (2, 1, 0.5, 1112484676)]
    return {
        "ratings.csv": ("userId,movieId,rating,timestamp\n" + _lines(ratings, ",")).encode(),
        "movies.csv": ("movieId,title,genres\n" + _lines(films, ",")).encode(),
    }


LAYOUTS = {"ml-100k": official, "ml-1m": one_million, "ml-20m": twenty_million}


def folder(files: dict[str, bytes], path: Path) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(files: dict[str, bytes], path: Path, *, inside: str, directories: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as target:
        if inside and directories:
            target.writestr(inside, "")
        for name, content in files.items():
            target.writestr(inside + name, content)
    return path


def assert_same(first: Interactions, second: Interactions) -> None:
    for name in ("user_ids", "item_ids", "user", "item", "rating", "timestamp", "weight"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert first.items.to_dict() == second.items.to_dict()
    if first.user_attributes is None:
        assert second.user_attributes is None
    else:
        np.testing.assert_array_equal(first.user_attributes, second.user_attributes)


def test_both_layouts_of_the_100k_give_the_same_interactions(tmp_path):
    first = load_movielens(path=folder(official(), tmp_path / "official"))
    second = load_movielens(path=folder(atomic(), tmp_path / "atomic"))
    assert_same(first, second)
    assert first.titles == ["Toy Story", "The Usual Suspects", "Les Misérables", "Good Morning", "Wallace & Gromit: 2"]
    assert first.items["year"][:] == [1995, 1995, 1995, 1971, None]
    assert first.texts[:2] == [
        "Toy Story (1995). Animation, Children's, Comedy.",
        "The Usual Suspects (1995). Crime, Thriller.",
    ]
    assert first.user_ids.tolist() == [7, 196, 22]
    assert first.item.tolist() == [2, 0, 0, 3, 4]
    assert first.user_attributes.shape == (3, 1 + 2 + 3)


@pytest.mark.parametrize(
    ("in_official", "in_atomic", "title", "year"),
    [  # films 267 and 1412, as the two distributions spell them
        ("unknown", ("unkonwn", "unkonwn"), "unknown", None),
        ("Land Before Time III (1995) (V)", ("Land Before Time III (1995)", "V"), "Land Before Time III", 1995),
    ],
)
def test_both_layouts_agree_on_the_two_films_that_they_spell_differently(in_official, in_atomic, title, year, tmp_path):
    first, second = official(), atomic()
    first["u.item"] = first["u.item"].replace(b"Toy Story (1995)", in_official.encode())
    second["ml-100k.item"] = second["ml-100k.item"].replace(b"Toy Story\t1995", "\t".join(in_atomic).encode())
    for name, files in (("official", first), ("atomic", second)):
        data = load_movielens(path=folder(files, tmp_path / name))
        assert (data.titles[0], data.items["year"][0]) == (title, year)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_zip_is_read_like_the_folder_it_unpacks_to(name, tmp_path):
    files = LAYOUTS[name]()
    from_folder = load_movielens(name, path=folder(files, tmp_path / "plain"))
    assert from_folder.name == name
    inside = f"{name}/"
    assert_same(from_folder, load_movielens(name, path=archive(files, tmp_path / "a.zip", inside=inside)))
    assert_same(
        from_folder, load_movielens(name, path=archive(files, tmp_path / "b.zip", inside=inside, directories=False))
    )
    assert_same(from_folder, load_movielens(name, path=archive(files, tmp_path / "c.zip", inside="")))
    nested = folder(files, tmp_path / "outer" / name)
    assert_same(from_folder, load_movielens(name, path=nested.parent))


def test_the_1m_layout(tmp_path):
    data = load_movielens("ml-1m", path=folder(one_million(), tmp_path / "x"))
    assert data.titles == ["Toy Story", "The City of Lost Children", "Les Misérables"]
    assert data.item.tolist() == [1, 0, 0]
    assert data.rating.tolist() == [5, 4, 3]
    assert data.user_attributes.shape == (2, 2 + 1 + 2)  # gender and occupation as categories, age as a number
    assert data.texts[1] == "The City of Lost Children (1995). Adventure, Sci-Fi."


def test_both_layouts_of_the_1m_give_the_same_interactions(tmp_path):
    official, atomic = whole_million()
    first = load_movielens("ml-1m", path=folder(official, tmp_path / "official"))
    second = load_movielens("ml-1m", path=folder(atomic, tmp_path / "atomic"))
    assert_same(first, second)
    assert first.item_ids[first.item].tolist() == [3952, 73, 1873, 1001]
    assert [first.titles[item] for item in first.item] == [
        "A Film 3952", "Les Misérables", "Les Misérables", "The Associate (L'Associe)",
    ]  # fmt: skip
    assert [first.items["year"][item] for item in first.item] == [1990, 1995, 1998, 1982]


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("item", "Film 92, A (1990)\tFilm 92, A\t1990\tDrama War\n", "", r"ml-1m\.item has 3882 films, not 3883"),
        ("item", "Misérables, Les (1998)", "Misérables, Les (1995)", r"title 'Misérables, Les \(1995\)' occurs twice"),
        ("inter", "Film 3952, A (1990)", "Heat (1995)", r"row 1: item_id 'Heat \(1995\)' is not in the items table"),
    ],
)
def test_titles_that_do_not_tell_the_film_are_refused(file, old, new, expected, tmp_path):
    _, files = whole_million()
    files[f"ml-1m.{file}"] = files[f"ml-1m.{file}"].decode().replace(old, new).encode()
    with pytest.raises(InputError, match=expected):
        load_movielens("ml-1m", path=folder(files, tmp_path / "x"))


def test_the_20m_layout(tmp_path):
    data = load_movielens("ml-20m", path=folder(twenty_million(), tmp_path / "x"))
    assert data.titles == ["Toy Story", "The American President", "Amélie", "Babylon 5"]
    assert data.items["genres"][:] == ["Animation, Comedy", "Comedy, Romance", "", "Sci-Fi"]
    assert data.items["year"][:] == [1995, 1995, 2001, None]
    assert data.rating.tolist() == [3.5, 4.0, 0.5]
    assert data.user_attributes is None


def test_the_template_decides_the_text(tmp_path):
    data = load_movielens(path=folder(official(), tmp_path / "x"), template="{genres}: {title}")
    assert data.texts[1] == "Crime, Thriller: The Usual Suspects"


@pytest.mark.parametrize(
    ("listed", "spoken"),
    [
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Walk in the Clouds, A", "A Walk in the Clouds"),
        ("Affair to Remember, An", "An Affair to Remember"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        (
            "City of Lost Children, The (Cité des enfants perdus, La)",
            "The City of Lost Children (Cité des enfants perdus, La)",
        ),
        ("Theodora, Thea", "Theodora, Thea"),
        ("The Usual Suspects", "The Usual Suspects"),
    ],
)
def test_a_trailing_article_goes_to_the_front(listed, spoken):
    assert _article_first(listed) == spoken


@pytest.mark.parametrize(
    ("printed", "title", "year"),
    [
        ("Heat (1995)", "Heat", 1995),
        ("Heat (1995) ", "Heat", 1995),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("1984 (1956)", "1984", 1956),
        ("Shanghai Triad (Yao a yao) (1995)", "Shanghai Triad (Yao a yao)", 1995),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("Big Bang Theory, The (2007-)", "The Big Bang Theory", 2007),
        ("Diplomatic Immunity (2009– )", "Diplomatic Immunity", 2009),
        ("Babylon 5", "Babylon 5", None),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
    ],
)
def test_the_year_is_taken_off_the_title(printed, title, year, tmp_path):
    files = {"ratings.csv": b"u,i,r,t\n1,1,3,5\n", "movies.csv": f'i,t,g\n1,"{printed}",Drama\n'.encode()}
    data = load_movielens("ml-20m", path=folder(files, tmp_path / "x"))
    assert data.titles == [title]
    assert data.items["year"][:] == [year]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": "ml-10m"}, ["'ml-10m'", "ml-100k, ml-1m, ml-20m"]),
        ({"name": "ml-20m"}, ["ml-20m.zip", "path"]),
        ({"path": "nowhere.zip"}, ["'nowhere.zip'", "check the path"]),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_way_out(arguments, expected):
    with pytest.raises(InputError) as caught:
        load_movielens(**arguments)
    for part in expected:
        assert part in str(caught.value)


def test_a_path_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"text\.zip' is not a zip"):
        load_movielens(path=tmp_path / "text.zip")
    with pytest.raises(InputError, match=r"has no ratings\.dat"):
        load_movielens("ml-1m", path=folder(official(), tmp_path / "x"))


# the real ones


@pytest.fixture(scope="module")
def real() -> Interactions:
    return load_movielens()


def test_the_100k_has_the_published_sizes(real):
    assert (real.n_users, real.n_items, len(real)) == (943, 1682, 100_000)
    assert np.bincount(real.user).min() == 20
    assert np.bincount(real.item).min() == 1
    assert np.unique(real.rating).tolist() == [1, 2, 3, 4, 5]
    assert real.rating.mean() == pytest.approx(3.52986, abs=1e-5)
    assert (real.timestamp.min(), real.timestamp.max()) == (874724710, 893286638)


def test_three_quarters_of_the_100k_are_tied(real):
    assert real.tied_share == pytest.approx(0.758, abs=0.0005)


def test_the_100k_knows_its_users_and_films(real):
    assert real.user_attributes.shape == (943, 1 + 2 + 21)
    np.testing.assert_allclose(real.user_attributes[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(real.user_attributes[:, 1:].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(real.user_attributes[:, 1:3].sum(1), 0, atol=1e-5)  # F and M, centred
    assert real.texts[0] == "Toy Story (1995). Animation, Children's, Comedy."
    assert "The Usual Suspects" in real.titles
    assert not any(title.endswith((", The", ", A", ", An")) for title in real.titles)


@pytest.fixture(scope="module")
def real_1m() -> Interactions:
    if not assets.path("ml-1m").is_dir():
        pytest.skip("ml-1m is not in the cache: recsys-cl assets fetch ml-1m")
    return load_movielens("ml-1m")


@pytest.mark.network
def test_the_1m_has_the_published_sizes(real_1m):
    assert (real_1m.n_users, real_1m.n_items, len(real_1m)) == (6040, 3883, 1_000_209)
    assert np.unique(real_1m.item).size == 3706
    assert np.bincount(real_1m.user).min() == 20
    assert real_1m.user_attributes.shape == (6040, 2 + 1 + 21)


@pytest.mark.network
def test_the_1m_has_the_published_events(real_1m):
    """Both sources give ``ratings.dat`` back to the byte: the wheel, which has no film ids, too."""
    columns = (real_1m.user_ids[real_1m.user], real_1m.item_ids[real_1m.item], real_1m.rating, real_1m.timestamp)
    rows = zip(*(column.astype(int).tolist() for column in columns), strict=True)
    assert hashlib.md5(_lines(rows, "::").encode()).hexdigest() == "a89aa3591bc97d6d4e0c89459ff39362"


@pytest.mark.network
@pytest.mark.parametrize(
    ("number", "title", "year"),
    [
        (1, "Toy Story", 1995),
        (260, "Star Wars: Episode IV - A New Hope", 1977),
        (858, "The Godfather", 1972),
        (1001, "The Associate", 1982),
        (1196, "Star Wars: Episode V - The Empire Strikes Back", 1980),
        (1210, "Star Wars: Episode VI - Return of the Jedi", 1983),
        (1682, "The Truman Show", 1998),
        (2028, "Saving Private Ryan", 1998),
        (2571, "The Matrix", 1999),
        (2858, "American Beauty", 1999),
        (3578, "Gladiator", 2000),
        (3814, "Love and Death", 1975),
        (3816, "The Official Story", 1985),
        (3952, "The Contender", 2000),
    ],
)
def test_the_1m_knows_its_films_by_number(real_1m, number, title, year):
    film = real_1m.items[int(np.flatnonzero(real_1m.item_ids == number)[0])]
    assert (film["title"].partition(" (")[0], film["year"]) == (title, year)
