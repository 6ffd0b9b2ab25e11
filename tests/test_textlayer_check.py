"""Which embedded text can be trusted: real languages, tables and code; not what no reader sees."""

from __future__ import annotations

import pytest

from tasks.textlayer import is_garbage

ENGLISH = (
    "The committee met on the third of March to discuss the annual budget, and after a long "
    "debate it was agreed that the proposal should be sent back to the office for another look. "
    "Members who could not attend were asked to send their comments in writing before Friday."
)

TRUSTED = {
    "english": ENGLISH,
    "english, short": "Invoice No. 4711\nTotal due: 35.00",
    "german": "Die Rechtsschutzversicherungsgesellschaft übernimmt sämtliche Kosten des "
    "Verfahrens, "
    "sofern der Versicherungsnehmer den Schaden rechtzeitig gemeldet hat. Hiervon ausgenommen sind "
    "Streitigkeiten über Grundstücke, Schiffe und selbstständige Tätigkeiten.",
    "french": "L'assemblée générale s'est réunie à l'hôtel de ville pour étudier les résultats de "
    "l'année écoulée. Où sont passés les élèves qui n'étaient pas là hier, et à quelle heure "
    "faut-il qu'ils arrivent demain ? Aucune réponse n'a été donnée.",
    "polish": "Wszystkie przesyłki należy zgłosić w ciągu trzech dni roboczych od chwili "
    "otrzymania zawiadomienia. Przedsiębiorca zobowiązuje się do zwrotu pieniędzy, jeżeli "
    "książka została uszkodzona wskutek złego zapakowania. Chrząszcz brzmi w trzcinie.",
    "vietnamese": "Cộng hòa xã hội chủ nghĩa Việt Nam là một quốc gia nằm ở cực đông của bán đảo "
    "Đông Dương thuộc khu vực Đông Nam Á. Người lao động được nghỉ phép năm mười hai ngày làm "
    "việc nếu làm đủ mười hai tháng trong điều kiện bình thường.",
    "turkish": "Türkiye'nin başkenti Ankara'dır. Sözleşmenin imzalanmasından sonra alıcının "
    "ödemeyi on beş gün içinde yapması gerekmektedir. Çalışanların yıllık izinleri işveren "
    "tarafından düzenlenir ve kullanılmayan günler bir sonraki yıla aktarılır.",
    "czech": "Všechna lidská stvoření se rodí svobodná a rovná co do důstojnosti a práv. Strč prst "
    "skrz krk. Smlouva nabývá účinnosti dnem podpisu oběma smluvními stranami.",
    "finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. "
    "Heille on annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan "
    "veljeyden hengessä.",
    "russian": "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены "
    "разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "chinese": "人人生而自由,在尊严和权利上一律平等。"
    "他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً وعليهم "
    "أن يعامل بعضهم بعضاً بروح الإخاء.",
    "hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "numbers": "\n".join(f"{n} {n * 17.5:.2f} {n * 3}% {n + 1900}" for n in range(1, 60)),
    "a table": "Name\tQty\tPrice\nBolt M8\t12\t0.30\nNut "
    "M8\t12\t0.10\nWasher\t24\t0.05\nSum\t\t6.00",
    "python": "def read_entry(store: LocalStore, key: str) -> Entry:\n    metadata = "
    "pq.read_metadata(store.path(key)).metadata or {}\n    told = json.loads(metadata[PART])\n"
    "    extents = tuple(_extent(extent) for extent in told['extents'])\n    return "
    "Entry(extents)\n"
    "class WorkerPool:\n    def __init__(self, processes: int) -> None:\n        self._pool "
    "= None\n",
    "java": "public class HttpServletRequestWrapper extends ServletRequestWrapper {\n"
    "  private final AtomicInteger requestCounter = new AtomicInteger();\n"
    "  @Override public String getHeaderValueByName(String headerName) {\n"
    "    requestCounter.incrementAndGet();\n    return super.getHttpServletRequest().getHeader("
    "headerName);\n  }\n  public void setMaxInactiveInterval(int intervalInSeconds) { }\n}\n",
    "capitals": ENGLISH.upper(),
    "part numbers": "\n".join(
        f"XJR-{4471 + n}-BK  MKQ{n}TTX  HWD/{n}/PCB  BRKT,MTG,LH  SCR-HX-M{n}" for n in range(25)
    ),
    "acronyms": "The NHTSA and the FMVSS of the USDOT, IEEE, BVLGK and PCMCIA: see RFC, HTTP, "
    "HTTPS, SMTP, XML, XSLT, CSS, JSON, XHTML, PNG, JPEG, MPEG and the WYSIWYG of the PDFs.",
    "formulas": "Let x ∈ ℝⁿ and ∇f(x) = 0; then ∫₀¹ g(t) dt ≤ ∑ᵢ aᵢ²  ⟹  ‖x‖ → 0 as n → ∞.",
    "bullets": "\uf0b7 First point of the list of things to do\n\uf0b7 Second point that follows "
    "the first one\n\uf0b7 Third point, after which there are no more points to be made today",
    "references": "Kohmoto K, Itoh Y, Nishimura S (1993) Phytopathology 83:131-140. doi:10.1094/"
    "Phyto-83-131\nhttps://www.example.org/articles/view?id=4471&lang=en",
}

LOREM = ENGLISH.split()


def shifted(text: str, by: int) -> str:
    """A Caesar shift: what a font without a usable encoding gives."""
    return "".join(
        chr((ord(c) - 97 + by) % 26 + 97) if "a" <= c <= "z" else c for c in text.lower()
    )


UMLAUTS = (
    "Für Öl und Gemüse fällt künftig höhere Steuer an, erklärte das Präsidium gegenüber den "
    "Ländern; während größere Städte überwiegend dafür wären, lehnten übrige Räte ab."
)

GARBAGE = {
    **{f"shifted by {by}": shifted(ENGLISH, by) for by in range(1, 26)},
    "replacement characters": " ".join(
        "\ufffd" * len(word) if number % 5 == 0 else word for number, word in enumerate(LOREM)
    ),
    "replacement characters only": "\ufffd\ufffd \ufffd\ufffd\ufffd",
    "private use": "".join(chr(0xE000 + ord(c)) if c.isalpha() else c for c in ENGLISH),
    "control characters": ENGLISH.replace("e", "\x03"),
    "mojibake": UMLAUTS.encode().decode("latin-1"),
    "mojibake of windows": UMLAUTS.encode().decode("cp1252", "replace"),
    "russian mojibake": TRUSTED["russian"].encode().decode("latin-1"),
    "without spaces": ENGLISH.replace(" ", "").replace(",", "").replace(".", ""),
    "lines without spaces": "\n".join("".join(LOREM[n : n + 9]) for n in range(0, len(LOREM), 9)),
    "consonant soup": "bcdfg hjklm npqrs tvwxz bdfhj kmprt vxzbd ghkmr tpqsl fgjkw zxcvb nmlkj "
    * 3,
    "random letters": "xqwk jzpv ghtr vbnw qzxk plmk wjfd hgcv bnqx zrtp kdlw vmxc jqhb wgtz" * 3,
    "words torn apart": " ".join(
        f"{word[:1]} {word[1:3]} {word[3:]}" if len(word) > 3 else word for word in LOREM
    ),
    "nothing": " \n\t ",
}


@pytest.mark.parametrize("name", TRUSTED)
def test_what_a_person_wrote_is_trusted(name: str) -> None:
    assert not is_garbage(TRUSTED[name])
    assert not is_garbage((TRUSTED[name] + "\n") * 5)


@pytest.mark.parametrize("name", GARBAGE)
def test_what_no_person_wrote_is_not(name: str) -> None:
    assert is_garbage(GARBAGE[name])
