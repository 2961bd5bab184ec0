# SPDX-License-Identifier: Apache-2.0
"""Seeded text for tokenizer tests: prose and code to train on, and byte strings
of every awkward kind to compare on."""

import random
import unicodedata

WORDS = (
    "the of and to in is that for it as with was on be by at from this which "
    "router expert token layer weight gradient sparse dense model running "
    "jumped quickly café naïve Straße élan Ångström día mañana пример слова "
    "текст язык δοκιμή λέξη שלום עולם مرحبا العالم नमस्ते दुनिया สวัสดีครับ "
    "你好世界 自然语言 東京都 ひらがな カタカナ 한국어 단어 I'm don't we'll they've it's he'd "
    "ISN'T CAN'T x1 v2 2024 3.14 1,000,000 0xFF"
).split()

CODE = (
    "def f(x):\n    return x + 1\n",
    "for (int i = 0; i < n; ++i) {\n\ta[i] *= 2.5e-3;\n}\n",
    "#include <vector>\r\n\r\nstd::map<int, std::string> m;\r\n",
    '{"key": [1, 22, 333, null, true], "s": "a\\n\\"b\\""}',
    "if (a != b && !(c || d)) { printf(\"%s\\n\", s); } // note\n",
    "SELECT * FROM t WHERE id >= 10 AND name LIKE '%x_';",
    "x = [y**2 for y in range(10) if y % 2 == 0]  # squares\n",
    "http://example.org/a/b?c=d&e=f#g",
)

EMOJI = (
    "😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "❤️", "1️⃣", "🤷🏻‍♀️", "👩‍💻", "☺",
)

SPACES = (
    " ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\t \t",
    "\u00a0", "\u2003", "\u3000", "\u200b", "\u180e", "\u2028", "\x0b", "\x0c",
    "\x85", "\ufeff", "\u1680",
)

# First and last code points: scripts, marks, digits, symbols, and letters that
# Unicode added late.
BLOCKS = (
    (0x21, 0x7E), (0xA1, 0x24F), (0x250, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF),
    (0x900, 0x97F), (0x980, 0x9FE), (0xB80, 0xBFA), (0xE01, 0xE5B),
    (0xF00, 0xFDA), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F),
    (0x13A0, 0x13FD), (0x1780, 0x17F9), (0x1E00, 0x1FFE), (0x2010, 0x2064),
    (0x2070, 0x20C0), (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF),
    (0x2C00, 0x2C5F), (0x3041, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA640, 0xA7FF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFB4F),
    (0xFE20, 0xFE6B), (0xFF01, 0xFFEE), (0x10330, 0x1034A),
    (0x10D40, 0x10D8F), (0x11F00, 0x11F59), (0x16D40, 0x16D79),
    (0x1D400, 0x1D7FF), (0x1E5D0, 0x1E5FF), (0x1F000, 0x1FAFF),
    (0x20000, 0x2A6DF), (0x31350, 0x323AF), (0xE0100, 0xE01EF),
)

INVALID = (
    b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf",
    b"\xf5\x80", b"\x80\x80", b"\xe0\x80\x80", b"\xf4\x90\x80\x80", b"\xc3(",
)


def training_text(seed: int, lines: int) -> list[str]:
    """Lines of prose and code to train a tokenizer on."""
    rng = random.Random(seed)
    return [
        rng.choice(CODE)
        if rng.random() < 0.2
        else " ".join(rng.choices(WORDS, k=rng.randint(3, 20))) + "."
        for _ in range(lines)
    ]


def _character(rng: random.Random) -> str:
    first, last = rng.choice(BLOCKS)
    return chr(rng.randint(first, last))


def _piece(rng: random.Random, specials: list[str]) -> bytes:
    kind = rng.randrange(12)
    if kind <= 2:
        text = rng.choice(WORDS)
        text = rng.choice((text, text.upper(), text.title()))
    elif kind == 3:
        text = rng.choice(CODE)
    elif kind == 4:
        text = rng.choice(SPACES) * rng.choice((1, 1, 1, 2, 3, 17))
    elif kind == 5:
        text = rng.choice(EMOJI)
    elif kind == 6:
        text = "".join(_character(rng) for _ in range(rng.randint(1, 8)))
    elif kind == 7:
        text = rng.choice(specials)
    elif kind == 8:
        text = str(rng.randrange(10 ** rng.randint(1, 12)))
    elif kind == 9:
        text = chr(rng.choice([*range(32), 127, 0xAD, 0x2060, 0xFFFD, 0xFFFF]))
    elif kind == 10:
        form = rng.choice(("NFC", "NFD", "NFKC", "NFKD"))
        text = unicodedata.normalize(form, rng.choice(WORDS) + "ﬁ Å ｶﾞ 각 ỗ")
    else:
        return rng.choice(INVALID)
    return text.encode()


def mixed_strings(seed: int, count: int, specials: list[str]) -> list[bytes]:
    """Byte strings of mixed pieces, some of them one long run."""
    rng = random.Random(seed)
    strings = [b"", b" ", b"\n", b"\x00"]
    while len(strings) < count:
        joint = rng.choice((b"", b" ", b" "))
        pieces = [_piece(rng, specials) for _ in range(rng.randint(1, 12))]
        if rng.random() < 0.02:
            pieces = [pieces[0] * (1 + 2000 // (1 + len(pieces[0])))]
        strings.append(joint.join(pieces))
    return strings
