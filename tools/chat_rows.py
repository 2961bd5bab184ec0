# SPDX-License-Identifier: Apache-2.0
"""A data row as what a chat template takes. Keys that change what a row means
are used or refused by name; all others are its owner's notes and ignored."""

import dataclasses
import json


class TemplateProblem(Exception):
    """A template or a row that can't be used; one line."""


# Whether a message is trained on, in the words of several tools.
SWITCHES = ("weight", "train", "training", "loss")
# What a message says beside its content. Lost where a template has no word for it.
SAID = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
# Keys that mean something which nothing here does, and what to do instead.
ROW_KEYS = {
    "attention_mask": "it belongs to input_ids",
    "assistant_masks": "it belongs to input_ids",
    "completion_mask": "it belongs to input_ids",
    "loss_mask": 'say it per message: "weight": 0 or 1',
    "labels": "it belongs to input_ids",
    "weights": 'say it per message: "weight": 0 or 1',
    "sample_weight": "give the file a weight, as in data.jsonl:2",
    "loss_weight": "give the file a weight, as in data.jsonl:2",
    "system": "make it the first message, with the role system",
    "system_prompt": "make it the first message, with the role system",
    "functions": "write them as tools",
    "function_call": "write it as tool_calls of a message",
    "chat_template": "put it into the model's folder, as chat_template.jinja",
    "enable_thinking": "put it into chat_template_kwargs",
    "add_generation_prompt": "a row is a whole conversation",
    "continue_final_message": "a row is a whole conversation",
    "images": "text is all that is trained on",
    "image": "text is all that is trained on",
    "videos": "text is all that is trained on",
    "audios": "text is all that is trained on",
}
MESSAGE_KEYS = {
    "train_detail": 'say it per message: "weight": 0 or 1',
    "loss_mask": 'say it per message: "weight": 0 or 1',
    "loss_weight": 'say it per message: "weight": 0 or 1',
    "prefix": "a row is a whole conversation",
    "images": "text is all that is trained on",
}
# Arguments of apply_chat_template itself, which a row can't choose.
NOT_KWARGS = frozenset(
    "conversation messages tools documents chat_template add_generation_prompt "
    "continue_final_message tokenize padding truncation max_length return_tensors "
    "return_dict return_assistant_tokens_mask tokenizer_kwargs conversations".split()
)


@dataclasses.dataclass
class Conversation:
    """What one row asks for."""

    messages: list[dict]
    tools: list | None = None
    documents: list | None = None
    kwargs: dict = dataclasses.field(default_factory=dict)
    trained: set[int] = dataclasses.field(default_factory=set)  # numbers of messages

    def options(self) -> dict:
        return {"tools": self.tools, "documents": self.documents, **self.kwargs}


def is_set(value) -> bool:
    """Whether a key says anything: null, nothing and no don't."""
    return value not in (None, False, "", [], {}) or value is True


def _refuse(row: dict, keys: dict[str, str], where: str) -> None:
    for key, instead in keys.items():
        if is_set(row.get(key)):
            raise TemplateProblem(f"'{key}' of {where} is not supported: {instead}")


def _list_of_objects(row: dict, key: str) -> list | None:
    value = row.get(key)
    if isinstance(value, str) and value.strip():  # as tables without types hold it
        try:
            value = json.loads(value)
        except ValueError as error:
            raise TemplateProblem(f"'{key}' is no valid JSON: {error}") from error
    if value in (None, ""):
        return None
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise TemplateProblem(f"expected '{key}' to be a list of objects")
    return value


def _kwargs(row: dict) -> dict:
    kwargs = row.get("chat_template_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise TemplateProblem("expected 'chat_template_kwargs' to be an object")
    if wrong := sorted(NOT_KWARGS & kwargs.keys()):
        raise TemplateProblem(f"'{wrong[0]}' can't stand in 'chat_template_kwargs'")
    return kwargs


def _check_content(message: dict, where: str) -> None:
    content = message.get("content")
    if not isinstance(content, list):
        return
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if str(kind).split("_")[-1] in ("image", "url", "audio", "video", "file"):
            raise TemplateProblem(
                f"{where} holds a part of type '{kind}': text is all that is trained on"
            )


def _is_trained(message: dict, where: str) -> bool:
    _refuse(message, MESSAGE_KEYS, where)
    _check_content(message, where)
    answers = {key: message[key] for key in SWITCHES if message.get(key) is not None}
    for key, value in answers.items():
        if value not in (0, 1):
            raise TemplateProblem(
                f"expected '{key}' of {where} to be 0 or 1, found {json.dumps(value)}"
            )
    if len(set(map(bool, answers.values()))) > 1:
        raise TemplateProblem(f"{' and '.join(answers)} of {where} contradict each other")
    if message.get("role") == "assistant":
        return all(answers.values())
    for key, value in answers.items():
        if value and key != "weight":  # which some write into every message
            raise TemplateProblem(
                f"'{key}' of {where} asks to train on the role "
                f"'{message.get('role')}': only what the assistant says is trained on"
            )
    return False


def read_row(row: dict) -> Conversation:
    """The conversation of a row with messages."""
    messages = row["messages"]
    _refuse(row, ROW_KEYS, "a row of messages")
    for key in ("weight", "train"):
        if row.get(key) not in (None, 1):
            raise TemplateProblem(
                f"'{key}' of a whole row is not supported: give it to messages, or "
                "give the file a weight, as in data.jsonl:2"
            )
    trained = {
        i
        for i, message in enumerate(messages)
        if _is_trained(message, f"message {i + 1}")
    }
    return Conversation(
        messages,
        _list_of_objects(row, "tools"),
        _list_of_objects(row, "documents"),
        _kwargs(row),
        trained,
    )
