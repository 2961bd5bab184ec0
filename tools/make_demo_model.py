# SPDX-License-Identifier: Apache-2.0
"""Makes demo/: text, tokenizer and a small Qwen3-MoE trained on that text.

The text comes from demo_text.py and a seed; the model sees far more lines than
are stored. Same seed, same versions and same kind of processor give the same
bits: one thread, deterministic operators, every draw from a seeded generator.

    python tools/make_demo_model.py            # writes demo/; 20 minutes
    python tools/make_demo_model.py --check    # reloads it, compares its losses
"""

import argparse
import json
import math
import pathlib
import platform
import random
import sys
import time

import demo_text
import tokenizers
import torch
import transformers
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    load_balancing_loss_func,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, _, END_OF_TURN = range(3)
SPLIT_REGEX = (  # Qwen's: one digit a token, words with their space
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n"
)
WINDOW = 256  # of the held-out loss, as `fettle eval --seq-len 256`
ROW, ROWS = 512, 8  # a training step is ROWS rows of ROW packed tokens
PEAK_RATE, WARMUP, FLOOR = 3e-3, 50, 0.05  # floor: a fraction of the peak
BALANCE = 0.001  # small: experts may specialise, but none may die
IGNORE = -100


def make_tokenizer(texts, vocab_size):
    """A byte-level BPE with Qwen's normalizer and split."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    pre = tokenizers.pre_tokenizers
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(tokenizers.Regex(SPLIT_REGEX), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = tokenizers.processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[END_OF_TURN],
        "model_max_length": 1024,
        "pad_token": SPECIAL[END_OF_TEXT],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def make_model(vocab_size):
    config = transformers.Qwen3MoeConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_local_experts=16,
        num_experts_per_tok=4,
        moe_intermediate_size=96,
        norm_topk_prob=True,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        router_aux_loss_coef=BALANCE,
        pad_token_id=END_OF_TEXT,
        eos_token_id=END_OF_TURN,
    )
    return transformers.Qwen3MoeForCausalLM._from_config(
        config, dtype=torch.float32, experts_implementation="grouped_mm"
    )


# --- Training ---------------------------------------------------------------


def packed_batches(sequences, seed):
    """Yields (ids, positions, labels), each (ROWS, ROW), without end.

    Sequences are shuffled anew each epoch and put into the first row with
    room. Positions restart with each sequence, by which transformers keeps
    attention inside it. A sequence's first token and padding have no label.
    """
    rng, waiting = random.Random(f"{seed}/batches"), []
    while True:
        rows, misses = [[] for _ in range(ROWS)], 0
        room, later = [ROW] * ROWS, []
        while misses < 2 * ROWS:
            if not waiting:
                waiting = rng.sample(sequences, len(sequences))
            sequence = waiting.pop()
            fits = [i for i in range(ROWS) if room[i] >= len(sequence)]
            if fits:
                rows[fits[0]].append(sequence)
                room[fits[0]] -= len(sequence)
            else:
                later.append(sequence)
                misses += 1
        waiting += reversed(later)
        yield pack(rows)


def pack(rows):
    ids = torch.full((ROWS, ROW), END_OF_TEXT)
    labels = torch.full((ROWS, ROW), IGNORE)
    positions = torch.zeros((ROWS, ROW), dtype=torch.long)
    for i, row in enumerate(rows):
        start = 0
        for sequence in row:
            end = start + len(sequence)
            ids[i, start:end] = torch.tensor(sequence)
            labels[i, start + 1 : end] = ids[i, start + 1 : end]
            positions[i, start:end] = torch.arange(len(sequence))
            start = end
        positions[i, start:] = torch.arange(ROW - start)
    return ids, positions, labels


def balance_loss(router_logits, config):
    """Mean over layers; transformers pools them, so that layers could drift."""
    losses = [
        load_balancing_loss_func(
            (logits,), config.num_local_experts, config.num_experts_per_tok
        )
        for logits in router_logits
    ]
    return torch.stack(losses).mean()


def learning_rate(step, steps):
    if step < WARMUP:
        return PEAK_RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK_RATE * (
        FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    )


def train(model, sequences, steps, seed):
    """AdamW with cosine decay; returns the number of tokens with a loss."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": 0.1},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    batches, tokens, begun = packed_batches(sequences, seed), 0, time.time()
    model.train()
    for step in range(steps):
        ids, positions, labels = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        out = model(
            input_ids=ids,
            position_ids=positions,
            labels=labels,
            output_router_logits=True,
            use_cache=False,
        )
        balance = balance_loss(out.router_logits, model.config)
        # The pooled balance term that the model adds is taken out again.
        loss = out.loss - BALANCE * out.aux_loss
        (loss + BALANCE * balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int((labels != IGNORE).sum())
        if step % 25 == 0 or step == steps - 1:
            rate = tokens / (time.time() - begun)
            print(
                f"step {step:5d}  loss {loss.item():.4f}"
                f"  balance {balance.item():.3f}  {rate:.0f} tokens/s",
                file=sys.stderr,
                flush=True,
            )
    return tokens


# --- Held-out loss and routing ----------------------------------------------


def read_texts(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


@torch.no_grad()
def measure(model, tokenizer, texts):
    """Loss and routing of a file, line by line in windows of WINDOW tokens.

    Returns (scored tokens, mean NLL in nats, routed slots (L, E)). A window's
    first token is not scored.
    """
    config, tokens, total = model.config, 0, 0.0
    slots = torch.zeros(config.num_hidden_layers, config.num_local_experts)
    for text in texts:
        ids = tokenizer.encode(text)
        for start in range(0, len(ids), WINDOW):
            window = torch.tensor([ids[start : start + WINDOW]])
            out = model(input_ids=window, output_router_logits=True)
            for layer, logits in enumerate(out.router_logits):
                chosen = logits.topk(config.num_experts_per_tok).indices
                slots[layer] += chosen.flatten().bincount(
                    minlength=config.num_local_experts
                )
            losses = torch.nn.functional.cross_entropy(
                out.logits[0, :-1].float(), window[0, 1:], reduction="none"
            )
            tokens += losses.numel()
            total += losses.double().sum().item()
    return tokens, total / tokens, slots


def measure_all(demo):
    """{domain: (tokens, nll, slots)} of the saved bf16 model, run in fp32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        demo / "model", dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(demo / "model")
    return {
        domain: measure(
            model, tokenizer, read_texts(demo / f"data/held_{domain}.jsonl")
        )
        for domain in demo_text.DOMAINS
    }


def mutual_information(slots):
    """Bits that a routed slot's expert tells about the domain: (L,).

    slots (D, L, E); each domain weighs the same.
    """
    joint = slots / slots.sum(-1, keepdim=True) / slots.shape[0]
    expert, domain = joint.sum(0), 1 / slots.shape[0]
    ratio = joint / (expert * domain).clamp_min(1e-30)
    return (joint * ratio.clamp_min(1e-30).log2()).sum((0, 2))


def specialisation_table(results):
    """Share of a domain's routing that goes to its own four busiest experts,
    and the share that the other domains send to those same four."""
    domains = list(results)
    slots = torch.stack([results[d][2] for d in domains])
    share = slots / slots.sum(-1, keepdim=True)  # (D, L, E)
    lines = ["| layer | I(domain; expert), bits | " + " | ".join(domains)]
    lines += ["|---|---|" + "---|" * (len(domains) - 1) + "---"]
    for layer, bits in enumerate(mutual_information(slots)):
        cells = []
        for d in range(len(domains)):
            top = share[d, layer].topk(4).indices
            others = [e for e in range(len(domains)) if e != d]
            rest = share[others, layer][:, top].sum(-1).mean()
            names = ", ".join(str(e) for e in sorted(top.tolist()))
            own = share[d, layer, top].sum()
            cells.append(f"{names}: {own:.0%} / {rest:.0%}")
        lines.append(f"| {layer} | {bits:.2f} | " + " | ".join(cells))
    return "\n".join(line + " |" for line in lines)


# --- Output -----------------------------------------------------------------

PROVENANCE = """# Where the demo model comes from

Text, tokenizer and weights were made by `tools/make_demo_model.py` and
`tools/demo_text.py` of this repository, from nothing but the seed. No outside
text, model or tokenizer was used. Licence of all of `demo/`: Apache-2.0.

    python tools/make_demo_model.py --steps {steps} --seed {seed}

torch {torch}, transformers {transformers}, tokenizers {tokenizers}, Python
{python}; fp32 on one CPU thread, {minutes:.0f} minutes. The same versions on
the same kind of processor give the same bits; others give a model of the same
quality. `--check` reloads the model and compares its losses with
`held_nll.json`.

## Data

Five domains, each a program that draws a prompt and an answer that follows
from it: `math` (word problems with worked answers), `stories` (English),
`code` (Python functions and classes with computed assertions), `records`
(JSON orders and CSV tables with derived fields), `recipes` (German).
Training draws from {lines} lines a domain, one in eight as a ChatML
conversation. Stored: the first {train} of them a domain
(`data/train_*.jsonl`), {held} held-out lines a domain (`data/held_*.jsonl`),
{chat} conversations and {completion} prompts with completions, all of them
held out.

## Model

{family}: {parameters:,} parameters ({active:,} active a token), {layers}
layers, hidden {hidden}, {experts} experts of width {width}, top-{top_k},
vocabulary {vocab}, tied embeddings, bf16. Trained {steps} steps, {tokens:,}
tokens with a loss, {rows} rows of {row} a step; AdamW, peak rate {rate},
cosine; balance loss {balance}, taken per layer over the whole batch, so that
experts are free to specialise by domain.

## Held-out loss

transformers in fp32; each line its own sequence, in windows of {window}
tokens; a window's first token is not scored; mean over scored tokens.

{losses}

## Experts specialise

Held-out routing. For each layer and domain: the domain's four busiest experts
of {experts}, the share of its routing that they take / the share that the
other domains send to the same four (evenly spread routing gives {even:.0%}).
The information is out of {entropy:.2f} bits.

{routing}
"""


def loss_table(results):
    lines = ["| domain | tokens | NLL | perplexity |", "|---|---|---|---|"]
    for domain, (tokens, nll, _) in results.items():
        lines.append(
            f"| {domain} | {tokens} | {nll:.4f} | {math.exp(nll):.3f} |"
        )
    return "\n".join(lines)


def parameter_counts(model):
    """(all, active a token)"""
    config = model.config
    idle = 1 - config.num_experts_per_tok / config.num_local_experts
    named = list(model.named_parameters())
    total = sum(p.numel() for _, p in named)
    experts = sum(p.numel() for name, p in named if ".experts." in name)
    return total, round(total - idle * experts)


def write_provenance(demo, model, results, run):
    config, (total, active) = model.config, parameter_counts(model)
    text = PROVENANCE.format(
        **run,
        **demo_text.STORED,
        torch=torch.__version__.split("+")[0],
        transformers=transformers.__version__,
        tokenizers=tokenizers.__version__,
        python=platform.python_version(),
        family=config.architectures[0],
        parameters=total,
        active=active,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        experts=config.num_local_experts,
        width=config.moe_intermediate_size,
        top_k=config.num_experts_per_tok,
        vocab=config.vocab_size,
        rate=PEAK_RATE,
        balance=BALANCE,
        rows=ROWS,
        row=ROW,
        window=WINDOW,
        losses=loss_table(results),
        even=4 / config.num_local_experts,
        entropy=math.log2(len(results)),
        routing=specialisation_table(results),
    )
    (demo / "PROVENANCE.md").write_text(text, encoding="utf-8")
    figures = {
        domain: {"tokens": tokens, "nll": round(nll, 6)}
        for domain, (tokens, nll, _) in results.items()
    }
    text = json.dumps({"seq_len": WINDOW, "files": figures}, indent=2) + "\n"
    (demo / "held_nll.json").write_text(text)


def check(demo):
    """Prints the held-out losses; 1 if they are not the recorded ones."""
    expected = json.loads((demo / "held_nll.json").read_text())["files"]
    results, wrong = measure_all(demo), 0
    print(loss_table(results))
    for domain, (tokens, nll, _) in results.items():
        want = expected[domain]
        if tokens != want["tokens"] or abs(nll - want["nll"]) > 2e-4:
            print(f"{domain}: recorded {want}, found {tokens}, {nll:.6f}")
            wrong = 1
    return wrong


def make(options):
    begun, demo = time.time(), options.out
    (demo / "model").mkdir(parents=True, exist_ok=True)
    texts = demo_text.make_data(demo / "data", options.seed, options.lines)
    tokenizer = make_tokenizer(texts, options.vocab)
    save_tokenizer(tokenizer, demo / "model")
    sequences = [
        e.ids[: ROW - 1] + [END_OF_TEXT] for e in tokenizer.encode_batch(texts)
    ]
    torch.manual_seed(options.seed)
    model = make_model(tokenizer.get_vocab_size())
    tokens = train(model, sequences, options.steps, options.seed)
    model.to(torch.bfloat16)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=[END_OF_TURN, END_OF_TEXT], pad_token_id=END_OF_TEXT
    )
    model.save_pretrained(demo / "model")
    results = measure_all(demo)
    run = {
        "steps": options.steps,
        "seed": options.seed,
        "lines": options.lines,
        "tokens": tokens,
        "minutes": (time.time() - begun) / 60,
    }
    write_provenance(demo, model, results, run)
    print(loss_table(results))
    return 0


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    demo = here.parent / "demo"
    parser.add_argument("--out", type=pathlib.Path, default=demo)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=7000, help="a domain")
    parser.add_argument("--vocab", type=int, default=1536)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    return check(options.out) if options.check else make(options)


if __name__ == "__main__":
    sys.exit(main())
