# SPDX-License-Identifier: Apache-2.0
"""What the assistant wrote in a rendered conversation, the marker of its turn's
end included and the header before it left out."""

import bisect
import itertools
import json
import os.path
import re

from chat_rows import SAID, Conversation, TemplateProblem, is_set
from chat_turns import NOBODY, NotFollowed, TurnFinder
from jinja2 import nodes

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# The other form of a message's content.
PARTS = 'a list: [{"type": "text", "text": …}]'
# What a template wants that fails so.
HINTS = {
    "'str object' has no attribute": f"it may want each content as {PARTS}",
    'str (not "dict") to str': "it may want a call's arguments as a string of JSON",
    "item pairs from a mapping": "it may want a call's arguments as an object",
}
# Conversations up to this length may be rendered once a message.
MAX_PREFIXES = 64
# What a part of a header ends in, where an answer has not the whole of it, and
# what is the answer's then.
BORDERS = tuple(">]: \n")
THOUGHT = re.compile(r"[<\[][\w:|]*think[\w:|]*[>\]]\s*$", re.IGNORECASE)


class Template:
    """One template of a model, by transformers' own engine."""

    def __init__(self, source: str, file: str, tokens: dict[str, str]):
        from transformers.utils import chat_template_utils

        self._engine = chat_template_utils.render_jinja_template
        self._source, self._file, self._tokens = source, file, tokens
        self._marked = GENERATION.search(source)
        self._prompts = {}
        try:
            environment = chat_template_utils._compile_jinja_template(source).environment
            tree = environment.parse(source)
            self._finder = TurnFinder(environment, source)
        except Exception as error:  # whatever jinja2 makes of a broken template
            raise self._failed(error) from error
        self._variables = {n.name for n in tree.find_all(nodes.Name)}
        self._words = {n.attr for n in tree.find_all(nodes.Getattr)}
        self._words |= {n.value for n in tree.find_all(nodes.Const)}

    def _failed(self, error: Exception) -> TemplateProblem:
        hint = next((f"; {h}" for words, h in HINTS.items() if words in str(error)), "")
        return TemplateProblem(
            f"the template in {self._file} failed: {type(error).__name__}: "
            f"{error}{hint}"
        )

    def render(self, messages: list, options: dict, **more) -> tuple[str, list]:
        """The text, and the spans of its generation marks if asked for."""
        try:
            texts, spans = self._engine(
                [messages],
                chat_template=self._source,
                **{**self._tokens, **options},
                **more,
            )
        except MemoryError:
            raise
        except Exception as error:  # templates raise whatever they like
            raise self._failed(error) from error
        return texts[0], spans[0] if spans else []

    def _stretches(self, text, messages, options, ask=False) -> list[tuple[int, str]]:
        variables = {"add_generation_prompt": ask, **self._tokens, **options}
        return self._finder.stretches(text, messages, variables)

    def _check_words(self, conversation: Conversation) -> None:
        """Refuses what this template would leave out without a word."""
        said = {"tools": conversation.tools, "documents": conversation.documents}
        lost = [k for k, v in said.items() if v and k not in self._variables]
        lost += [k for k in conversation.kwargs if k not in self._variables]
        if lost:
            raise TemplateProblem(
                f"the template in {self._file} has no use for '{lost[0]}' of the row: "
                "take it out of the data, or use a template that writes it"
            )
        for i, message in enumerate(conversation.messages):
            for key in SAID:
                if is_set(message.get(key)) and key not in self._words:
                    raise TemplateProblem(
                        f"the template in {self._file} leaves out '{key}' of message "
                        f"{i + 1}: take it out of the data, or use a template that "
                        "writes it"
                    )

    def spans(self, talk: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The text, and first and last character of what is trained on."""
        self._check_words(talk)
        options = talk.options()
        assistants = [
            i for i, m in enumerate(talk.messages) if m.get("role") == "assistant"
        ]
        if self._marked:
            text, spans = self.render(
                talk.messages, options, return_assistant_tokens_mask=True
            )
            if len(talk.trained) < len(assistants):
                spans = self._chosen(text, spans, talk)
            return text, spans
        text, _ = self.render(talk.messages, options)
        if not talk.trained:
            return text, []
        try:
            return text, self._answers(text, talk)
        except NotFollowed:
            return text, self._by_prefixes(text, talk)

    def _chosen(self, text: str, spans: list, talk: Conversation) -> list:
        """The spans of generation marks that belong to trained messages."""
        try:
            stretches = self._stretches(text, talk.messages, talk.options())
        except NotFollowed:
            raise TemplateProblem(
                f"the template in {self._file} doesn't tell which message a "
                "{% generation %} mark belongs to, so that messages can't be left "
                "out of training: train on all of them"
            ) from None
        ends = list(itertools.accumulate(len(piece) for _, piece in stretches))
        return [
            (first, last)
            for first, last in spans
            if first < last
            and stretches[bisect.bisect_right(ends, first)][0] in talk.trained
        ]

    def _answers(self, text: str, talk: Conversation) -> list[tuple[int, int]]:
        stretches = self._stretches(text, talk.messages, talk.options())
        self._check_contents(stretches, talk)
        spans, at, seen = [], 0, set()
        for owner, piece in stretches:
            first, at = at, at + len(piece)
            if owner in talk.trained:
                if owner not in seen:
                    first += self._header(piece, talk, owner)
                seen.add(owner)
                spans.append((first, at))
        # What closes the whole closes the last answer.
        last = len(talk.messages) - 1
        if spans and last in talk.trained and stretches[-1][0] == NOBODY:
            tail = stretches[-1][1]
            begins_turn = any(tail in prompt for prompt in self._prompts_of(talk, last))
            if spans[-1][1] == len(text) - len(tail) and not begins_turn:
                spans[-1] = (spans[-1][0], len(text))
        return spans

    def _check_contents(self, stretches: list, talk: Conversation) -> None:
        """Refuses a template that writes nothing of an answer."""
        pieces = {}
        for owner, piece in stretches:
            pieces.setdefault(owner, []).append(piece)
        for number in talk.trained & pieces.keys():
            message = talk.messages[number]
            words = _text_of(message.get("content")).split()
            piece = "".join(pieces[number])
            if is_set(message.get("tool_calls")) or not words:
                continue
            if not any(word in piece for word in words):
                is_text = isinstance(message["content"], str)
                other = PARTS if is_text else "a string"
                raise TemplateProblem(
                    f"the template in {self._file} leaves out the content of message "
                    f"{number + 1}; it may want {other}"
                )

    def _header(self, piece: str, talk: Conversation, number: int) -> int:
        """How much of an answer's stretch asks for the answer."""
        prompts = self._prompts_of(talk, number)
        said = _text_of(talk.messages[number].get("content")).strip()
        until = piece.find(said) if said else -1
        before = piece if until < 0 else piece[:until]
        # An answer's content may begin with what the template asks by.
        ends = [len(p) for p in prompts if piece.startswith(p)]
        ends += [before.find(p) + len(p) for p in prompts if p in before]
        if ends:
            return max(ends)
        for prompt in prompts:
            same = os.path.commonprefix([prompt, piece])
            while same and not same.endswith(BORDERS):
                same = same[:-1]
            ends.append(len(THOUGHT.sub("", same)))
        found = max(ends, default=0)
        if prompts and not found:
            header = self._usual_header(talk)
            found = before.find(header) + len(header) if header in before else 0
        return found

    def _usual_header(self, talk: Conversation) -> str:
        """What two different answers begin with alike."""
        question = next((m for m in talk.messages if m.get("role") == "user"), None)
        pieces = []
        for content in ("Yes", "No"):
            probe = [
                question or {"role": "user", "content": "?"},
                {"role": "assistant", "content": content},
            ]
            try:
                text, _ = self.render(probe, talk.options())
                stretches = self._stretches(text, probe, talk.options())
            except (TemplateProblem, NotFollowed):
                return ""
            pieces.append("".join(piece for owner, piece in stretches if owner == 1))
        return os.path.commonprefix(pieces)

    def _prompts_of(self, talk: Conversation, number: int) -> list[str]:
        """What the template may write to ask for message `number`, as after what
        stands before it, or as after a question."""
        before = talk.messages[number - 1] if number else {}
        kind = [before.get("role"), is_set(before.get("tool_calls"))]
        key = json.dumps([kind, bool(talk.tools), talk.kwargs], default=str)
        if key not in self._prompts:
            prompts = []
            for contexts in _contexts(talk.messages, number):
                prompts += self._find_prompts(contexts, talk, number)
            self._prompts[key] = [prompt for prompt in prompts if prompt]
        return self._prompts[key]

    def _find_prompts(self, contexts, talk: Conversation, number: int) -> list[str]:
        options = talk.options()
        problem = None
        for context in contexts:
            try:
                asked, _ = self.render(context, options, add_generation_prompt=True)
                stretches = self._stretches(asked, context, options, ask=True)
            except TemplateProblem as error:
                problem = problem or error
                continue
            prompts = [stretches[-1][1]] if stretches[-1][0] == NOBODY else []
            try:
                told, _ = self.render(context, options)
                prompts.append(asked[len(os.path.commonprefix([asked, told])) :])
            except TemplateProblem:
                pass
            return prompts
        if not problem:
            return []
        raise TemplateProblem(
            f"what asks for message {number + 1} can't be told, so that neither can "
            f"the answer: {problem}; put the assistant's part in {{% generation %}} marks"
        )

    def _by_prefixes(self, text: str, talk: Conversation) -> list[tuple[int, int]]:
        """By the difference that each answer makes to what stands before it."""
        changed = TemplateProblem(
            f"the template in {self._file} doesn't tell what the assistant wrote; put "
            "the assistant's part in {% generation %} marks or give one answer a "
            "conversation"
        )
        if len(talk.messages) > MAX_PREFIXES:
            raise changed
        spans = []
        for i in sorted(talk.trained):
            asked = ""
            if i:  # some templates refuse to render nothing at all
                asked, _ = self.render(
                    talk.messages[:i], talk.options(), add_generation_prompt=True
                )
            told, _ = self.render(talk.messages[: i + 1], talk.options())
            if not told.startswith(asked) or not text.startswith(told):
                raise changed
            spans.append((len(asked), len(told)))
        return spans


def _contexts(messages: list, number: int) -> list[list[list]]:
    """Conversations after which the template would ask for message `number`: from
    the last question on, or the whole; and a question alone, in several forms."""
    users = [i for i in range(number) if messages[i].get("role") == "user"]
    before = [messages[users[-1] : number], messages[:number]] if users else []
    questions = [m for m in messages if m.get("role") == "user"][:1]
    text = [{"type": "text", "text": "?"}]
    questions += [{"role": "user", "content": content} for content in ("?", text)]
    return [before, [[question] for question in questions]]


def _text_of(content) -> str:
    """A message's content without what belongs to a list of parts."""
    if isinstance(content, list):
        parts = (p.get("text") for p in content if isinstance(p, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
