# SPDX-License-Identifier: Apache-2.0
"""Fettle's tokenizer against the `tokenizers` package: every family's form,
trained here, on 10,000 mixed strings each."""

import json
import pathlib
import random
import subprocess

import pytest
import tokenizers
from mixed_text import mixed_strings, training_text
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The words of GPT-4o's vocabulary, which newer families took over.
O200K_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def train(tokenizer: Tokenizer, **options) -> Tokenizer:
    alphabet = options.pop("alphabet", pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=options.pop("vocab_size", 1500),
        initial_alphabet=alphabet,
        show_progress=False,
        **options,
    )
    tokenizer.train_from_iterator(training_text(7, 3000), trainer)
    return tokenizer


def byte_level(add_prefix_space=False, use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space, use_regex=use_regex)


def split(pattern: str, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def qwen() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([split(QWEN_WORDS), byte_level()])
    t.decoder = decoders.ByteLevel()
    train(t, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_tokens([AddedToken("<think>", normalized=False)])
    return t


def gpt2() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = byte_level(add_prefix_space=True, use_regex=True)
    t.decoder = decoders.ByteLevel()
    train(t, special_tokens=["<|endoftext|>"])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    end = t.token_to_id("<|endoftext|>")
    t.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", end), ("<|endoftext|>", end)
    )
    return t


def byte_fallback() -> Tokenizer:
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=True)
    train(
        t,
        alphabet=[],
        vocab_size=900,
        limit_alphabet=60,
        special_tokens=["<unk>", "<s>", "</s>", *BYTE_TOKENS],
    )
    t.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", t.token_to_id("<s>"))]
    )
    return without_byte_specials(t)


def without_byte_specials(t: Tokenizer) -> Tokenizer:
    """Byte tokens are ordinary ones: training alone wanted them special."""
    file = json.loads(t.to_str())
    file["added_tokens"] = [
        a for a in file["added_tokens"] if a["content"] not in BYTE_TOKENS
    ]
    return Tokenizer.from_str(json.dumps(file))


def mixtral() -> Tokenizer:
    return byte_fallback()


def llama_legacy() -> Tokenizer:
    """Llama's older form: spaces made visible by the normalizer, no words."""
    t = byte_fallback()
    t.pre_tokenizer = None
    t.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    file = json.loads(t.to_str())
    for token in file["added_tokens"]:
        token["normalized"] = token["content"] == "</s>"
    file["model"]["merges"] = [" ".join(m) for m in file["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(file))


def llama3() -> Tokenizer:
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([split(O200K_WORDS), byte_level()])
    t.decoder = decoders.ByteLevel()
    train(t, special_tokens=["<|begin_of_text|>", "<|eot_id|>"])
    t.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A <|eot_id|>",
                special_tokens=[("<|begin_of_text|>", 0), ("<|eot_id|>", 1)],
            ),
        ]
    )
    return t


def deepseek() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            split(r"[\r\n]"),
            split(
                r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ"
                r"Ⴀ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎ]+"
            ),
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            split(r"\s+$"),
            split(r"[一-龥ࠀ-一가-퟿]+"),
            pre_tokenizers.Digits(individual_digits=True),
            byte_level(),
        ]
    )
    t.decoder = decoders.ByteLevel()
    train(t, special_tokens=["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    t.add_tokens([AddedToken("<｜fim▁hole｜>", normalized=True)])
    t.post_processor = processors.TemplateProcessing(
        single="<｜begin▁of▁sentence｜> $A",
        special_tokens=[("<｜begin▁of▁sentence｜>", 0)],
    )
    return t


def neox() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = byte_level(use_regex=True)
    t.decoder = decoders.ByteLevel()
    train(t, special_tokens=["<|endoftext|>", "<|padding|>"])
    # Runs of spaces, longest first, as GPT-NeoX adds them.
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    t.add_tokens(["|||EMAIL_ADDRESS|||"])
    t.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>:0", special_tokens=[("<|endoftext|>", 0)]
    )
    return t


def everything_else() -> Tokenizer:
    """What no named family uses together, in one file."""
    t = Tokenizer(models.BPE(unk_token="[UNK]"))
    t.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.Lowercase(),
            normalizers.Strip(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Replace("'", ""),
        ]
    )
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [
            split(r"\d{1,3}", "contiguous"),
            split(r"[aeiou]\b", "merged_with_previous"),
            split(r"_", "merged_with_next"),
            split(r"[^x]+", "removed", invert=True),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.Whitespace(),
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Digits(),
            pre_tokenizers.Metaspace("▁", "always", split=False),
        ]
    )
    t.decoder = decoders.Metaspace("▁", "always")
    train(t, alphabet=[], special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    t.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    t.add_tokens(
        [
            AddedToken("Router", single_word=True, normalized=True),
            AddedToken("expert", single_word=True, normalized=False),
            AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
        ]
    )
    return t


FAMILIES = (
    qwen,
    gpt2,
    mixtral,
    llama_legacy,
    llama3,
    deepseek,
    neox,
    everything_else,
)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.__name__)
def family(request, tmp_path_factory) -> tuple[Tokenizer, pathlib.Path]:
    tokenizer = request.param()
    folder = tmp_path_factory.mktemp(request.param.__name__)
    # What is read back is what is compared: the file decides.
    tokenizer.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_file(str(folder / "tokenizer.json")), folder


def run(build_dir, folder, feed: bytes, *mode: str) -> list:
    done = subprocess.run(
        [build_dir / "fettle_tokenize", folder, *mode],
        input=feed,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def strings_for(tokenizer: Tokenizer, count: int) -> list[bytes]:
    added = tokenizer.get_added_tokens_decoder().values()
    return mixed_strings(11, count, [a.content for a in added] + ["<s>", "<"])


def framed(strings: list[bytes]) -> bytes:
    return b"".join(b"%d\n%s" % (len(s), s) for s in strings)


@pytest.mark.parametrize("special", (True, False))
def test_ids_equal(build_dir, family, special):
    tokenizer, folder = family
    strings = strings_for(tokenizer, 10_000 if special else 500)
    ours = run(build_dir, folder, framed(strings), *([] if special else ["--plain"]))
    theirs = [
        tokenizer.encode(s.decode("utf-8", "replace"), add_special_tokens=special).ids
        for s in strings
    ]
    wrong = [s for s, a, b in zip(strings, ours, theirs, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} differ, first {min(wrong, key=len)!r}"
    # The comparison means something only where the tokenizer does something.
    assert len({i for ids in theirs for i in ids}) > 300


def test_decoded_text_equals(build_dir, family):
    tokenizer, folder = family
    ids = [
        tokenizer.encode(s.decode("utf-8", "replace")).ids
        for s in strings_for(tokenizer, 1000)
    ]
    # Cut in the middle of characters too.
    ids += [i[1::2] for i in ids]
    feed = "".join(f"{i}\n" for i in ids).encode()
    ours = run(build_dir, folder, feed, "--decode")
    theirs = [tokenizer.decode(i) for i in ids]
    wrong = [i for i, a, b in zip(ids, ours, theirs, strict=True) if a != b]
    assert not wrong, f"{len(wrong)} differ, first {wrong[0]}"


def test_what_is_not_supported_is_named(build_dir, tmp_path):
    for component, name in (
        (("pre_tokenizer", {"type": "UnicodeScripts"}), "UnicodeScripts"),
        (("model", {"type": "WordLevel", "vocab": {}, "unk_token": ""}), "WordLevel"),
    ):
        file = json.loads(Tokenizer(models.BPE()).to_str())
        file[component[0]] = component[1]
        tokenizers.Tokenizer.from_str(json.dumps(file))  # the reference takes it
        file["model"].update({"vocab": {"a": 0}})
        (tmp_path / "tokenizer.json").write_text(json.dumps(file))
        done = subprocess.run(
            [build_dir / "fettle_tokenize", tmp_path], capture_output=True, check=False
        )
        assert done.returncode == 1
        assert name in done.stderr.decode()


# Characters on which engines differ: scripts and what several scripts share,
# letters of several in another case, digits that count as words, marks, what
# later versions of Unicode added, spaces that are none.
SPECIAL = (
    "abcKkSsTtffißẞſKﬁﬆİıͅςσΣΐ\u0390ŉǅǆǄé"
    "漢字かなカナー、。々〆한글АбвЁ\u0640اب\u0660٣नम\u0951\u0964ก"
    "0129²³¹¼ⅷ①_‿-–—+$€^|~'\"&[]\\:()"
    " \t\r\n\v\u00a0\u0085\u180e\u200b\u200d\u2028\u3000\ufeff"
    "\u0301\u0903\u20dd😀👍🏽\U00010d40\U00010d50\U00010d70\U0002ebf0\U0001171e"
    "\ua7cb\u0264\u019b\ua7dc\ue000\u0378\x01\x7f"
)
WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+",
    r"\p{Han}+|\p{Hiragana}+|\p{Katakana}+|[^\p{Han}]",
    r"[\p{Han}\p{Hiragana}\p{Katakana}ー]+|\P{Han}",
    r"\p{Arabic}+|\p{Devanagari}+|\p{Latin}+|\p{Common}+|\p{Inherited}",
    r"[^\W\d_]+|[\W_]|\d",
    r"[\p{L}\p{M}&&[^\p{Han}]]+|[^\p{L}&&\S]+",
    r"[[:alpha:]]+|[[:digit:]]+|[[:punct:]]|[[:^print:]]+",
    r"a(?i)b|S|\p{Lu}k|c",
    r"(?:x(?i)a|B)c|(?-i)K",
    r"(?i)[^a-ks]+|K|σ|[α-ω]",
    r"(?i)[\p{Lu}&&[^ΣS]&&[a-zσ]]+",
    r"\p{Emoji}|[\p{C}\p{Z}]+|\p{Uppercase Letter}\p{^L}",
    r"[\h\H]|[]a]|[-a]|[a-]|[a-c-z]",
    r"(.)\1|\R|^\s+|.$",
    r"(?m:.\n)|(?-m:.)+",
    r"[\p{Mn}]|[\p{Mc}]|[\P{Mn}&&\P{Mc}&&\p{M}]|\p{Cn}",
)
PARTS = (
    *(r"\w \W \s \S \d \D \h \H a-z A-Z 0-9 α-ω а-я ぁ-ん 一-龥 s k ß ſ ー".split()),
    *(rf"\{c}{{{n}}}" for c in "pP" for n in (
        "L", "Lu", "Ll", "Lt", "Lo", "M", "Mn", "N", "Nd", "P", "Pd", "S", "Sc", "Z",
        "C", "Cf", "Han", "Latin", "Cyrillic", "Greek", "Hangul", "Thai", "Common",
        "Hiragana", "Katakana", "Alphabetic", "Alnum", "Punct", "White_Space", "^Han")),
    *(f"[:{n}:]" for n in (
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower",
        "print", "punct", "space", "upper", "word", "xdigit", "^alpha", "^space")),
)


def bracket(rng: random.Random, depth: int = 0) -> str:
    """A bracket expression of unions, intersections and nested brackets."""
    text = rng.choice(("[", "[^"))
    for factor in range(rng.choice((1, 1, 1, 2, 3))):
        text += "&&" if factor else ""
        for _ in range(rng.randint(1, 3)):
            nested = depth < 2 and rng.random() < 0.2
            text += bracket(rng, depth + 1) if nested else rng.choice(PARTS)
    return text + "]"


def matcher(pattern: str) -> Tokenizer:
    """Keeps what the pattern matches, each match with a space before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    t = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [split(pattern, "removed", invert=True), byte_level(add_prefix_space=True)]
    )
    return t


def test_regular_expressions_equal_or_refused(build_dir, tmp_path):
    rng = random.Random(3)
    brackets = [bracket(rng) for _ in range(160)]
    patterns = [*WORD, *brackets, *("(?i)" + p for p in brackets[:60])]
    strings = ["".join(rng.choices(SPECIAL, k=rng.randint(1, 24))) for _ in range(120)]
    feed = framed([SPECIAL.encode(), *(s.encode() for s in strings)])
    refused = []
    for pattern in patterns:
        tokenizer = matcher(pattern)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        done = subprocess.run(
            [build_dir / "fettle_tokenize", tmp_path],
            input=feed,
            capture_output=True,
            check=False,
        )
        if done.returncode == 1:
            assert "does not translate" in done.stderr.decode(), pattern
            refused.append(pattern)
            continue
        assert done.returncode == 0, (pattern, done.stderr)
        ours = [json.loads(line) for line in done.stdout.splitlines()]
        for text, ids in zip([SPECIAL, *strings], ours, strict=True):
            assert ids == tokenizer.encode(text).ids, (pattern, text)
    # Brackets that ignore case match "ss" too where they hold ß; no others.
    assert all(p.startswith("(?i)") for p in refused), refused
    assert not set(refused) & set(WORD)
