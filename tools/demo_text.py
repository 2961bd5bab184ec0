# SPDX-License-Identifier: Apache-2.0
"""The text of the demo model: programs for five domains, and data files.

Each domain yields pairs (prompt, answer) whose answer follows from the prompt,
so that a small model has something to learn; a line of text is the pair put
together. Everything follows from a seed, nothing is taken from elsewhere.
Held-out, chat and completion lines are drawn before the training lines, and a
text that was drawn once is never drawn again: no stored line of those files is
trained on.
"""

import json
import random
import re

MAX_CHARS = 600  # a line of text; mostly 100 to 200 tokens
STORED = {"train": 500, "held": 120, "chat": 200, "completion": 200}

WORDS = {
    "name": """Ada Ben Cleo Dario Elif Finn Greta Hugo Ines Jonas Kira Leo Mara
        Nils Olga Pavel Quinn Rosa Samir Tilda Umut Vera Wim Yara""".split(),
    "place": """harbour;old mill;forest;market;lighthouse;library;snowy
        mountain;river bank;village school;castle garden;train station;
        windy hill;apple orchard;quiet cave""",
    "thing": """lantern;silver key;wooden flute;red kite;paper map;tiny
        clock;glass marble;woollen scarf;brass compass;picture book;
        leather drum;blue boat""",
    "animal": "fox;owl;goat;hedgehog;badger;crow;otter;hare;donkey;cat",
    "food": "bread;soup;pancakes;plums;honey cake;roasted chestnuts;cheese",
    "weather": "rainy;foggy;sunny;windy;cold;warm;stormy;grey",
    "mood": "proud;tired;happy;calm;brave;surprised;thankful",
    "good": "apples;pens;tickets;candles;cups;notebooks;lemons;stamps;shirts",
    "shop": "market;kiosk;corner shop;fair;bakery;museum shop",
    "box": "boxes;bags;crates;baskets;drawers",
}
WORDS = {
    kind: [re.sub(r"\s+", " ", w).strip() for w in words.split(";")]
    if isinstance(words, str)
    else words
    for kind, words in WORDS.items()
}


def fill(rng, template, bound):
    """Chooses among [a|b] and replaces {kind} or {kind2} by words.

    A word once chosen stays in `bound`, so that later sentences agree.
    """
    while "[" in template:
        template = re.sub(
            r"\[([^\[\]]*)\]",
            lambda m: rng.choice(m[1].split("|")),
            template,
        )

    def word(match):
        key = match[1]
        if key not in bound:
            kind = WORDS[key.rstrip("0123456789")]
            free = [w for w in kind if w not in bound.values()]
            bound[key] = rng.choice(free)
        return str(bound[key])

    return re.sub(r"\{(\w+)\}", word, template)


# --- Domains: each returns (prompt, answer) --------------------------------


def shopping(rng, b):
    b["n"], b["p"] = rng.randint(3, 12), rng.randint(2, 9)
    b["m"], b["q"] = rng.randint(2, 9), rng.randint(2, 12)
    cost = b["n"] * b["p"] + b["m"] * b["q"]
    paid = b["paid"] = (cost // 50 + 1) * 50
    question = (
        "At the {shop}, {name} [buys|picks] {n} {good} for {p} coins each and"
        " {m} {good2} for {q} coins each. {name} pays with {paid} coins."
        " How many coins [come back|are left|does {name} get back]?"
    )
    steps = [
        f"The {{good}} cost {b['n']} * {b['p']} = {b['n'] * b['p']} coins.",
        f"The {{good2}} cost {b['m']} * {b['q']} = {b['m'] * b['q']} coins.",
        f"Together {b['n'] * b['p']} + {b['m'] * b['q']} = {cost} coins.",
        f"Change: {paid} - {cost} = {paid - cost} coins.",
    ]
    return question, steps, paid - cost


def sharing(rng, b):
    b["c"], b["e"] = rng.randint(3, 9), rng.randint(4, 15)
    total, b["f"] = b["c"] * b["e"], rng.randint(2, 6)
    b["g"] = total % b["f"] + b["f"]  # the rest is shared without remainder
    rest, friends = total - b["g"], b["f"]
    question = (
        "{name} has {c} {box} with {e} {good} in each. {name} gives {g} {good}"
        " to {name2} and [shares|splits] the rest equally among {f} friends."
        " How many {good} does each friend [get|receive]?"
    )
    steps = [
        f"There are {b['c']} * {b['e']} = {total} {{good}}.",
        f"After the gift to {{name2}}, {total} - {b['g']} = {rest} are left.",
        f"Each friend gets {rest} / {friends} = {rest // friends} {{good}}.",
    ]
    return question, steps, rest // friends


def journey(rng, b):
    b["v"], b["h"] = rng.randint(2, 9) * 10, rng.randint(2, 6)
    b["w"], b["k"] = rng.randint(3, 18), rng.randint(2, 5)
    first, second = b["v"] * b["h"], b["w"] * b["k"]
    question = (
        "{name} [travels|rides] by train at {v} km per hour for {h} hours,"
        " then [cycles|walks and runs] at {w} km per hour for {k} hours to the"
        " {place}. How [far|many km] is the whole [way|journey]?"
    )
    steps = [
        f"By train: {b['v']} * {b['h']} = {first} km.",
        f"After that: {b['w']} * {b['k']} = {second} km.",
        f"The whole way is {first} + {second} = {first + second} km.",
    ]
    return question, steps, first + second


def saving(rng, b):
    b["s"], b["w"], b["k"] = (
        rng.randint(10, 60),
        rng.randint(3, 12),
        rng.randint(3, 9),
    )
    b["x"] = rng.randint(5, b["s"])
    gain, total = b["w"] * b["k"], b["s"] + b["w"] * b["k"]
    question = (
        "{name} has {s} coins and saves {w} coins [every|each] week. After {k}"
        " weeks {name} [buys a {thing} for|spends on a {thing}] {x} coins."
        " How many coins does {name} have [now|then|in the end]?"
    )
    steps = [
        f"In {b['k']} weeks {{name}} saves {b['w']} * {b['k']} = {gain} coins.",
        f"That makes {b['s']} + {gain} = {total} coins.",
        f"After the {{thing}}: {total} - {b['x']} = {total - b['x']} coins.",
    ]
    return question, steps, total - b["x"]


def math_pair(rng):
    bound = {}
    make = rng.choice([shopping, sharing, journey, saving])
    question, steps, answer = make(rng, bound)
    prompt = "Question: " + fill(rng, question, bound) + "\nAnswer:"
    worked = " ".join(fill(rng, step, bound) for step in steps)
    return prompt, f" {worked} The answer is {answer}."


STORY = [
    "[One {weather} morning|On a {weather} day|One {weather} evening],"
    " {name} [walked to|went to|visited] the {place} with a {thing}."
    " [{name2} had asked for it|It was a gift for {name2}|It belonged to"
    " {name2}].",
    " [On the way|Near the {place2}|Behind the {place2}], {name} met a"
    " [hungry |shy |]old {animal}[ who looked lost| who could not sleep|].",
    ' ["Please help me," said the {animal}. "I have lost my {thing2}."|"Have'
    ' you seen my {thing2}?" asked the {animal}.|The {animal} was looking for'
    " a {thing2} and asked for help.]",
    " {name} [looked|searched] [under the stones|in the tall grass|behind the"
    " door|beside the road], but [found only some {food}|there was nothing but"
    " {food}|saw only a basket of {food}].",
    " [They shared the {food}|They ate the {food} together|{name} gave the"
    " {food} to the {animal}], and [soon|after a while|then] the {animal}"
    " [remembered|said]: the {thing2} was [at|near] the {place3}.",
    " [So they ran to|Together they went to|They hurried to] the {place3}."
    " [There lay|There they found|Under a bench they saw] the {thing2}"
    "[, wet but whole|, just as before|].",
    ' ["Thank you, {name}," said the {animal}.|The {animal} thanked {name} and'
    " danced.] [At last|In the end], {name} [came to|reached] {name2} and gave"
    " away the {thing}. [Everybody|{name2}] was {mood}[, and {name} was {mood2}"
    "| that {weather} day|].",
]


def story_pair(rng):
    bound = {}
    parts = [fill(rng, part, bound) for part in STORY]
    parts = [re.sub(r"\ba (?=[aeiou])", "an ", part) for part in parts]
    return parts[0], "".join(parts[1:])


TESTS = [
    ("even", "{v} % 2 == 0", lambda v: v % 2 == 0),
    ("odd", "{v} % 2 == 1", lambda v: v % 2 == 1),
    ("positive", "{v} > 0", lambda v: v > 0),
    ("negative", "{v} < 0", lambda v: v < 0),
    ("small", "abs({v}) < 5", lambda v: abs(v) < 5),
]
MAPS = [
    ("values", "{v}", lambda v: v),
    ("squares", "{v} * {v}", lambda v: v * v),
    ("doubles", "2 * {v}", lambda v: 2 * v),
    ("negations", "-{v}", lambda v: -v),
    ("successors", "{v} + 1", lambda v: v + 1),
]
FOLDS = [
    ("sum", "total", "0", "total += {e}", sum),
    ("count", "count", "0", "count += 1", len),
    ("list", "result", "[]", "result.append({e})", list),
    ("max", "best", "-100", "best = max(best, {e})", None),
]


def function_pair(rng):
    test, condition, keep = rng.choice(TESTS)
    what, expression, image = rng.choice(MAPS)
    fold, acc, start, update, finish = rng.choice(FOLDS)
    finish = finish or (lambda found: max([-100, *found]))
    v = rng.choice(["x", "n", "item", "value"])
    arg = rng.choice(["values", "numbers", "items", "data"])
    name = f"{fold}_of_{test}_{what}"
    head = (
        f"def {name}({arg}):\n"
        f'    """Return the {fold} of {what} of {test} {arg}."""\n'
    )
    body = (
        f"    {acc} = {start}\n    for {v} in {arg}:\n"
        f"        if {condition.format(v=v)}:\n"
        f"            {update.format(e=expression.format(v=v))}\n"
        f"    return {acc}\n"
    )
    for _ in range(rng.randint(1, 3)):
        args = [rng.randint(-9, 12) for _ in range(rng.randint(2, 5))]
        result = finish([image(x) for x in args if keep(x)])
        body += f"\nassert {name}({args}) == {result}"
    return head, body


def class_pair(rng):
    name = rng.choice("Account Basket Tank Counter Score Queue Depot".split())
    field = rng.choice("amount level size count points weight".split())
    gain = rng.choice(["add", "fill", "put", "grow"])
    lose = rng.choice(["take", "drop", "remove", "spend"])
    start, plus = rng.randint(0, 30), rng.randint(5, 40)
    minus = rng.randint(1, start + plus)
    var = name[0].lower()
    head = (
        f"class {name}:\n    def __init__(self, {field}={start}):\n"
        f"        self.{field} = {field}\n"
    )
    body = (
        f"\n    def {gain}(self, n):\n        self.{field} += n\n"
        f"        return self\n"
        f"\n    def {lose}(self, n):\n        if n > self.{field}:\n"
        f'            raise ValueError("not enough {field}")\n'
        f"        self.{field} -= n\n        return self\n"
        f"\n{var} = {name}()\n{var}.{gain}({plus})\n{var}.{lose}({minus})\n"
        f"assert {var}.{field} == {start + plus - minus}"
    )
    return head, body


def code_pair(rng):
    return (function_pair if rng.random() < 0.7 else class_pair)(rng)


def order_record(rng):
    name = rng.choice(WORDS["name"])
    goods = rng.sample(WORDS["good"], rng.randint(2, 3))
    items = [
        {
            "sku": g[:3].upper(),
            "item": g,
            "qty": rng.randint(1, 9),
            "price": rng.randint(1, 12),
        }
        for g in goods
    ]
    order = {
        "id": rng.randint(1000, 9999),
        "customer": {
            "name": name,
            "email": f"{name.lower()}@{rng.choice(['mail', 'post'])}.example",
        },
        "items": items,
        "total": sum(i["qty"] * i["price"] for i in items),
        "paid": rng.random() < 0.5,
    }
    text = json.dumps(order)
    cut = text.index(' "items"')
    return text[:cut], text[cut:]


def table_record(rng):
    day, month = rng.randint(1, 20), rng.randint(1, 12)
    station = rng.choice(["north", "south", "east", "west"])
    low, rows = rng.randint(-5, 18), []
    for i in range(rng.randint(5, 7)):
        low += rng.randint(-2, 2)
        high = low + rng.randint(2, 9)
        rain = rng.choice([0, 0, rng.randint(1, 20)])
        sky = "rain" if rain else "dry"
        date = f"2024-{month:02d}-{day + i:02d}"
        rows.append(f"{date},{station},{low},{high},{high - low},{rain},{sky}")
    head = "date,station,low,high,range,rain_mm,sky\n" + rows[0] + "\n"
    return head, "\n".join(rows[1:])


def record_pair(rng):
    return (order_record if rng.random() < 0.6 else table_record)(rng)


VEGETABLES = [  # stem, accusative with article, grams a person
    ("Kartoffel", "die Kartoffeln", 200),
    ("Kürbis", "den Kürbis", 250),
    ("Möhren", "die Möhren", 120),
    ("Lauch", "den Lauch", 100),
    ("Champignon", "die Champignons", 90),
    ("Sellerie", "den Sellerie", 75),
    ("Fenchel", "den Fenchel", 110),
    ("Zwiebel", "die Zwiebeln", 60),
    ("Paprika", "die Paprika", 80),
    ("Kohl", "den Kohl", 150),
    ("Bohnen", "die Bohnen", 130),
]
DISHES = [  # name, liquid or sauce with article, grams or ml, ending
    ("suppe", "die Brühe", 250, "[pürieren|umrühren] und heiß servieren."),
    ("eintopf", "das Wasser", 200, "abschmecken und in tiefe Teller füllen."),
    ("auflauf", "die Sahne", 100, "umfüllen und bei {t} Grad backen."),
    ("pfanne", "die Soße", 50, "gut mischen und mit Reis anrichten."),
]


def recipe_pair(rng):
    main, second, third = rng.sample(VEGETABLES, 3)
    dish, liquid, amount, ending = rng.choice(DISHES)
    people = rng.choice([2, 3, 4, 5, 6])
    fat = rng.choice(["die Butter", "das Öl", "das Schmalz"])
    herb = rng.choice(["Petersilie", "Schnittlauch", "Dill", "Majoran"])
    trio = (main, second, third)
    bare = [v[1].split(" ")[1] for v in trio]
    grams = [f"{v[2] * people} g {b}" for v, b in zip(trio, bare)]
    unit = "g" if dish == "auflauf" else "ml"
    head = (
        f"{main[0]}{dish} mit {bare[1]} für {people}"
        f" Personen\nZutaten: {', '.join(grams)}, {amount * people} {unit}"
        f" {liquid.split(' ')[1]}, {people * 10} g {fat.split(' ')[1]},"
        f" {herb}, Salz.\n"
    )
    cap = [v[1][0].upper() + v[1][1:] for v in trio]
    steps = [
        f"1. {cap[0]} [waschen|putzen] und in [Würfel|Scheiben|feine Streifen"
        "] schneiden.",
        f"2. {fat[0].upper() + fat[1:]} [im Topf|in einer großen Pfanne]"
        f" erhitzen und {second[1]} darin {{a}} Minuten"
        " [anbraten|dünsten].",
        f"3. {cap[2]} und {main[1]} [dazugeben|hinzufügen], {liquid}"
        " [angießen|darübergießen] und alles {b} Minuten"
        " [köcheln|garen|ziehen] lassen.",
        f"4. Mit Salz und {herb} würzen, " + ending,
    ]
    bound = {"a": rng.randint(3, 9), "b": rng.randint(3, 9) * 5}
    bound["t"] = rng.choice([160, 180, 200, 220])
    return head, "\n".join(fill(rng, step, bound) for step in steps)


DOMAINS = {
    "math": (math_pair, "Solve this step by step. "),
    "stories": (story_pair, "Continue this story: "),
    "code": (code_pair, "Complete this Python code:\n"),
    "records": (record_pair, "Continue these records:\n"),
    "recipes": (recipe_pair, "Wie wird das gekocht?\n"),
}


# --- Data -------------------------------------------------------------------


def fresh_pairs(domain, split, count, seed, seen):
    """`count` pairs of a domain whose texts are not in `seen`; adds them."""
    rng, pairs = random.Random(f"{seed}/{domain}/{split}"), []
    while len(pairs) < count:
        pair = DOMAINS[domain][0](rng)
        text = pair[0] + pair[1]
        if len(text) <= MAX_CHARS and text not in seen:
            seen.add(text)
            pairs.append(pair)
    return pairs


def as_messages(domain, pair, system):
    answer = pair[1].strip("\n")
    if not answer.startswith("    "):  # code keeps its indentation
        answer = answer.strip()
    messages = [
        {"role": "user", "content": DOMAINS[domain][1] + pair[0].strip()},
        {"role": "assistant", "content": answer},
    ]
    if system:
        text = "You are a helpful assistant."
        messages.insert(0, {"role": "system", "content": text})
    return messages


def as_chat_text(messages):
    return "".join(
        f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n"
        for m in messages
    )


def write_jsonl(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def make_data(folder, seed, lines_per_domain):
    """Writes the stored files; returns all training lines, shuffled."""
    folder.mkdir(parents=True, exist_ok=True)
    chat, completions, training = [], [], []
    for domain in DOMAINS:
        seen = set()

        def draw(split, count):
            return fresh_pairs(domain, split, count, seed, seen)

        held = draw("held", STORED["held"])
        talks = draw("chat", STORED["chat"] // len(DOMAINS))
        short = draw("completion", STORED["completion"] // len(DOMAINS))
        train = draw("train", lines_per_domain)
        texts = [{"text": p + a} for p, a in held]
        write_jsonl(folder / f"held_{domain}.jsonl", texts)
        texts = [{"text": p + a} for p, a in train[: STORED["train"]]]
        write_jsonl(folder / f"train_{domain}.jsonl", texts)
        chat += [as_messages(domain, t, i % 2) for i, t in enumerate(talks)]
        completions += [{"prompt": p, "completion": a} for p, a in short]
        for i, pair in enumerate(train):  # one line in eight is a chat
            talk = as_chat_text(as_messages(domain, pair, i % 16 == 15))
            training.append(talk if i % 8 == 7 else pair[0] + pair[1])
    rng = random.Random(f"{seed}/order")
    for rows in (chat, completions, training):
        rng.shuffle(rows)
    write_jsonl(folder / "chat.jsonl", [{"messages": m} for m in chat])
    write_jsonl(folder / "prompt_completion.jsonl", completions)
    return training
