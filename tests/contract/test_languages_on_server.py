"""Words of many languages and scripts, in another form or spelling than they are stored in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.search.client import ImageSearch
from tests.support.house import House, house_of_module

# Language: pairs of what a picture is named, and what is typed to find it.
NAMED_AND_TYPED = {
    "English": ["penguin penguins", "cats cat", "berries berry", "boxes box", "city cities"],
    "German": ["Häuser Haus", "Katze Katzen", "Vögel Vogel", "Kinder Kind", "Blumen Blume"],
    "French": ["chevaux cheval", "oiseau oiseaux", "maisons maison", "journaux journal",
               "bijoux bijou", "chats chat"],
    "Spanish": ["gatos gato", "flores flor", "luz luces", "leones león", "corazón corazones"],
    "Italian": ["gatti gatto", "cavallo cavalli", "fiori fiore", "pizze pizza", "laghi lago"],
    "Portuguese": ["corações coração", "leão leões", "animais animal", "barcos barco"],
    "Dutch": ["huizen huis", "hond honden", "bomen boom", "bloemen bloem", "ramen raam"],
    "Swedish": ["katter katt", "hundar hund", "bilar bil", "flickor flicka"],
    "Danish": ["hunde hund", "heste hest"],
    "Norwegian": ["hester hest", "fugl fugler", "blomster blomst"],
    "Catalan": ["gats gat", "vaixells vaixell", "flors flor"],
    "Finnish": ["kissat kissa", "koira koirat", "talot talo"],
    "Hungarian": ["macskák macska", "emberek ember", "virág virágok"],
    "Turkish": ["kediler kedi", "ev evler", "çiçekler çiçek"],
    "Indonesian": ["kucing kucingnya", "bukunya buku"],
    "Russian": ["кошки кошка", "собака собаку", "пингвины пингвин", "птицы птица"],
    "Ukrainian": ["котики котик", "собаки собака"],
    "Bulgarian": ["котки котка", "птици птица"],
    "Greek": ["γάτες γάτα", "σκύλος σκύλοι", "σπίτια σπίτι"],
    "Arabic": ["سيارات سيارة", "الكتاب كتاب"],
    "Persian": ["کتابها کتاب", "درختان درخت"],
    "Hindi": ["बिल्लियाँ बिल्ली", "किताबें किताब"],
    "Bengali": ["বিড়ালগুলো বিড়াল", "ফুলগুলি ফুল"],
    "Chinese": ["紅色的花朵 红色的花", "兩個孩子 两个孩子", "图片 圖片", "龙 龍", "台灣 台湾",
                "發電廠 发电厂", "熊猫 熊貓", "雙層巴士 双层巴士"],
    "Japanese": ["ラーメン らーめん", "ｶﾞﾗｽ ガラス", "さくら サクラ", "図書館 圖書館", "駅前 驛前",
                 "気球 氣球", "ﾊﾟﾝﾀﾞ ぱんだ"],
    "Korean": ["펭귄이 펭귄", "한국의집 한국의"],
    "Full width": ["ＢＭＷ bmw", "１２３４５６ 123456"],
}  # fmt: skip
# How a name is cut into words.
SPLIT = {
    "RedTulip-02": ["red tulip", "tulip", "Red-Tulip", "red_tulip_02", "redtulip", "RedTulips"],
    "IMG_9876": ["img 9876", "9876", "IMG9876", "img-9876"],
    "holiday2019beach": ["holiday", "beach 2019", "beach", "holiday2019beach", "beaches"],
    "NASARocketLaunch": ["nasa", "rocket launch", "NASA rocket"],
    "DSC00042-edit(3)": ["DSC00042", "dsc 00042", "edit 3"],
    "my.summer.picnic": ["summer picnic", "picnics"],
    "großeStraße": ["strasse", "große straße", "GROSSE STRASSE"],
    "Wärmflasche": ["warmflasche", "WÄRMFLASCHE"],
}


@pytest.fixture(scope="module")
def client(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSearch]:
    """An index of one picture each, whose vectors say nothing about them."""
    random = np.random.default_rng(0)
    named = {language: [each.split()[0] for each in pairs]
             for language, pairs in NAMED_AND_TYPED.items()} | {"names": list(SPLIT)}  # fmt: skip
    with house_of_module(es_url, tmp_path_factory.mktemp("languages")) as house:
        writes = [
            Write(f"{root} {name}", {
                "image_id": f"{root} {name}", "root": root, "relative_path": f"{name}.png",
                "image_name": f"{name}.png", "content_id": f"{root} {name}",
                "image_embedding": random.normal(size=house.encoder.dims),
            })
            for root, names in named.items()
            for name in names
        ]  # fmt: skip
        assert set(house.store.documents.write(writes).values()) == {None}
        house.store.refresh()
        yield client_of(house)


def client_of(house: House) -> ImageSearch:
    return ImageSearch(
        house.store.connection.client, settings=house.settings, encoder=house.encoder
    )


def best_name(client: ImageSearch, typed: str, root: str, mode) -> str | None:
    """The name of the best hit, if it is there for its words."""
    best = client.search_text(typed, mode=mode, filters={"root": root})[0]
    return best.relative_path.removesuffix(".png") if best.matches_words else None


@pytest.mark.parametrize("mode", ["auto", "text"])
@pytest.mark.parametrize("language", NAMED_AND_TYPED)
def test_another_form_of_a_word_finds_it(client: ImageSearch, language: str, mode):
    for pair in NAMED_AND_TYPED[language]:
        named, typed = pair.split()
        assert best_name(client, typed, language, mode) == named, typed
        assert best_name(client, named, language, mode) == named


@pytest.mark.parametrize("mode", ["auto", "text"])
@pytest.mark.parametrize("name", SPLIT)
def test_parts_of_a_name_find_it(client: ImageSearch, name: str, mode):
    for typed in SPLIT[name]:
        assert best_name(client, typed, "names", mode) == name, typed


@pytest.mark.parametrize(
    ("typed", "root", "named"),
    [
        ("a penguin", "English", "penguin"), ("two cats", "English", None),
        ("the house of the penguins", "English", None), ("my penguin's", "English", "penguin"),
        ("ein Haus am See", "German", None), ("die Katzen", "German", "Katze"),
        ("l'oiseau", "French", "oiseau"), ("un gatto", "Italian", "gatti"),
        ("o leão", "Portuguese", "leão"), ("het huis", "Dutch", "huizen"),
    ],
)  # fmt: skip
def test_words_that_say_nothing_need_no_match(
    client: ImageSearch, typed: str, root: str, named: str | None
):
    hits = client.search_text(typed, filters={"root": root})
    found = {hit.relative_path for hit in hits if hit.matches_words}
    assert found == ({f"{named}.png"} if named else set())
    assert hits.mode == ("hybrid" if named else "vector")


@pytest.mark.parametrize(
    ("typed", "named"),
    [("car", "care"), ("wine", "win"), ("god", "good"), ("greek", "green"), ("note", "not"),
     ("doll", "dollar"), ("color", "cola"), ("army", "arm"), ("store", "story"), ("son", "soon"),
     ("hate", "hat"), ("plane", "plan"), ("cart", "car"), ("boat", "boa"),
     ("data", "date"),
     ("stare", "star"), ("spine", "spin")],
)  # fmt: skip
def test_other_words_are_not_the_same_word(client: ImageSearch, typed: str, named: str):
    """English has to stay what it is beside the endings of other languages."""
    tokens = [
        {each["token"] for each in client.store.connection.request(
            "POST", f"/{client.info.name}/_analyze", {"analyzer": "stems", "text": word}
        )["tokens"]}
        for word in (typed, named)
    ]  # fmt: skip
    assert not tokens[0] & tokens[1]
