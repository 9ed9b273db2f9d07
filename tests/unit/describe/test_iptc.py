"""What people wrote into a file: XMP, IIM and EXIF, each on its own and against the others."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from es_imgsearch.describe import xmp
from es_imgsearch.describe.exif import Exif
from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.describe.iptc import Iptc
from es_imgsearch.describe.xmp import xmp_properties
from es_imgsearch.read.decoding import decode
from tests.support import picture_samples as samples

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">
   <dc:title><rdf:Alt><rdf:li xml:lang="de">Hafen</rdf:li>
     <rdf:li xml:lang="x-default">Harbour at dawn</rdf:li></rdf:Alt></dc:title>
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">Boats &amp; gulls</rdf:li></rdf:Alt>
   </dc:description>
   <dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Grace</rdf:li></rdf:Seq></dc:creator>
   <dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li></rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
# Its primaries in XYZ, D50.
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
OF_XMP = {
    "title": "Harbour at dawn",
    "description": "Boats & gulls",
    "creator": ["Ada", "Grace"],
    "keywords": ["sea", "boat"],
    "rating": 4,
}


def dataset(number: int, value: bytes, record: int = 2) -> bytes:
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value


def iim(*sets: bytes) -> bytes:
    """The application segment of a JPEG file that holds these datasets."""
    block = b"".join(sets)
    padded = block + b"\0" * (len(block) % 2)
    resource = b"8BIM" + struct.pack(">H", 0x0404) + b"\0\0" + struct.pack(">I", len(block))
    data = b"Photoshop 3.0\0" + resource + padded
    return b"\xff\xed" + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes, **options: Any) -> bytes:
    content = samples.saved(samples.four_corners(), "JPEG", **options)
    return content[:2] + b"".join(segments) + content[2:]


def described(content: bytes) -> dict[str, Any]:
    decoded = decode(content, max_pixels=1_000_000)
    return dict(Iptc().describe(decoded.image, decoded.exif, "a.jpg"))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "PNG"])
def test_xmp_is_read_in_every_format_that_has_it(kind: str):
    if kind == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP)
        content = samples.saved(samples.four_corners(), kind, pnginfo=info)
    elif kind == "TIFF":
        content = samples.saved(samples.four_corners(), kind, tiffinfo={700: XMP.encode()})
    else:
        content = samples.saved(samples.four_corners(), kind, xmp=XMP.encode())
    assert described(content) == OF_XMP


def test_a_picture_that_is_turned_and_has_a_profile_keeps_its_xmp():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = samples.rgb_profile(DISPLAY_P3)
    content = samples.saved(
        samples.four_corners(), "JPEG", xmp=XMP.encode(), exif=exif, icc_profile=profile
    )
    assert described(content) == OF_XMP


@pytest.mark.parametrize("packet", [b"", b"<x", XMP.encode()[:400], b"\0\xff" * 30])
def test_a_malformed_packet_costs_nothing_else(packet: bytes):
    content = jpeg(iim(dataset(5, b"Title")), xmp=packet)
    fields = described(content)
    for note in fields.pop(ERRORS_FIELD, []):
        assert note.startswith("iptc: left out: XMP: is malformed XMP: ")
    assert fields == {"title": "Title"}


def test_a_packet_is_parsed_once_for_all_that_read_it(monkeypatch: pytest.MonkeyPatch):
    """A malformed one was parsed anew by each: a picture's describers read it three times."""
    packets: list[bytes] = []
    parse = xmp._tree
    monkeypatch.setattr(xmp, "_tree", lambda packet: packets.append(packet) or parse(packet))
    image = Image.new("RGB", (1, 1))
    for packet in (b"<x-1", b"<x-2", XMP.encode() + b"<!-- 3 -->", b"<x-4"):
        image.info["xmp"] = packet
        found = [xmp.packet_properties(image) for _ in range(3)]
        assert found[0] == found[1] == found[2]
        found[0]["title"] = "changed"
        assert xmp.packet_properties(image) == found[1]
        Iptc().describe(image, Image.Exif(), "a.jpg")
        Exif().describe(image, Image.Exif(), "a.jpg")
    assert len(packets) == 4


@pytest.mark.parametrize("part", ["<?xml ", "<?xml\n", "<?xpacket ", "<?xml version='1.0'?", "&#1"])
def test_a_packet_of_many_beginnings_is_malformed_at_once(part: str):
    """Each `<?xml` was followed to the end of the packet: 4 MB took hours."""
    with pytest.raises(ValueError, match="malformed"):
        xmp_properties((part * (2_000_000 // len(part))).encode())


@pytest.mark.parametrize(
    "head",
    ["<?xml version='1.0'?>", "\n <?xml version='1.0' encoding='utf-8'?>\n",
     "\ufeff<?xml version='1.0'?>",
     "\0<?xml version='1.0'?>\0", "<?xpacket begin='' id='x'?><?xml version='1.0'?>",
     "<?xpacket begin='' id='x'?>\n<?xml version='1.0' encoding='unknown-8'?> "],
)  # fmt: skip
def test_a_declaration_costs_nothing(head: str):
    assert xmp_properties((head + XMP).encode())["title"] == "Harbour at dawn"


def test_entities_are_never_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with pytest.raises(ValueError, match="malformed"):
        xmp_properties(bomb)


def test_iim_is_read():
    content = jpeg(
        iim(
            dataset(90, b"\x1b%G", record=1),
            dataset(5, "Grüße".encode()),
            dataset(25, b"one"),
            dataset(25, b"two"),
            dataset(80, b"Ada"),
            dataset(120, b"A caption."),
        )
    )
    assert described(content) == {
        "title": "Grüße", "keywords": ["one", "two"], "creator": "Ada", "description": "A caption.",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["Grüße".encode(), "Grüße".encode("cp1252")])
def test_iim_that_does_not_say_its_characters_is_guessed_right(text: bytes):
    assert described(jpeg(iim(dataset(5, text)))) == {"title": "Grüße"}


def test_xmp_counts_before_iim_and_iim_before_exif():
    exif = Image.Exif()
    exif[0x9C9B] = "of exif".encode("utf-16-le")
    exif[ExifTags.Base.Artist] = "Edsger"
    exif[0x4746] = 2
    segments = iim(dataset(5, b"of iim"), dataset(120, b"of iim"))
    assert described(jpeg(exif=exif)) == {"title": "of exif", "creator": "Edsger", "rating": 2}
    assert described(jpeg(segments, exif=exif)) == {
        "title": "of iim", "description": "of iim", "creator": "Edsger", "rating": 2,
    }  # fmt: skip
    assert described(jpeg(segments, exif=exif, xmp=XMP.encode())) == OF_XMP


@pytest.mark.parametrize("words", ["OLYMPUS DIGITAL CAMERA         ", "SAMSUNG", " "])
def test_what_cameras_write_into_the_description_describes_nothing(words: str):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = words
    assert described(jpeg(exif=exif)) == {}


@given(st.binary(max_size=60))
def test_any_bytes_for_iim_give_texts_or_nothing(block: bytes):
    image = Image.new("RGB", (4, 4))
    image.info["photoshop"] = {0x0404: dataset(5, b"Title") + block}
    found = dict(Iptc().describe(image, Image.Exif(), "a.jpg"))
    found.pop(ERRORS_FIELD, None)
    assert found["title"] == "Title"
    for name, value in found.items():
        texts = value if isinstance(value, list) else [value]
        assert name in Iptc.mapping
        assert all(isinstance(text, str) and text and "\0" not in text for text in texts)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("5", 5), ("-1", -1), ("0", 0), ("3.0", 3), ("6", None), ("99", None), ("x", None)],
)
def test_ratings_are_those_of_xmp(text: str, wanted: int | None):
    packet = XMP.replace('xmp:Rating="4"', f'xmp:Rating="{text}"').encode()
    image = Image.new("RGB", (4, 4))
    image.info["xmp"] = packet
    assert Iptc().describe(image, Image.Exif(), "a.jpg").get("rating") == wanted


def test_texts_are_cut_to_what_elasticsearch_takes():
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "x" * 50_000
    buffer = io.BytesIO(jpeg(exif=exif))
    found = described(buffer.getvalue())
    assert len(found["creator"]) == 1024


@pytest.mark.parametrize("written", ["Grüße".encode(), "Grüße".encode("latin-1")])
def test_texts_of_exif_are_utf_8_or_else_western(written: bytes):
    exif = Image.Exif()
    # Pillow itself writes nothing but ASCII.
    exif[ExifTags.Base.Artist] = "A" * len(written)
    file = jpeg(exif=exif).replace(b"A" * len(written), written)
    assert described(file) == {"creator": "Grüße"}


@pytest.mark.parametrize(
    ("written", "text"),
    [(each.encode(encoding), each)
     for each in ("Kamera Müller", "Ærø", "Málaga – Ñandú", "10 €", "naïve", "Größe", "Ada")
     for encoding in ("utf-8", "cp1252")]
    + [("Müller 写真".encode(), "Müller 写真"), ("Łódź".encode(), "Łódź"),
       ("📷 x".encode(), "📷 x"), ("Grüße ".encode() + "ü".encode("cp1252"), "Grüße ü")],
)  # fmt: skip
def test_the_same_bytes_are_the_same_text_in_every_tag(written: bytes, text: str):
    """The camera was `Kamera MÃ¼ller`, while the creator was right."""
    exif = Image.Exif()
    marks = {tag: bytes([65 + n]) * len(written) for n, tag in enumerate((0x010E, 0x0110, 0x013B))}
    for tag, mark in marks.items():
        exif[tag] = mark.decode()
    file = jpeg(iim(dataset(5, written)), exif=exif)
    for mark in marks.values():
        file = file.replace(mark, written)
    decoded = decode(file, max_pixels=1_000_000)
    assert Exif().describe(decoded.image, decoded.exif, "a.jpg") == {"camera": text}
    assert described(file) == {"title": text, "description": text, "creator": text}
