"""Makes the miniature's tokenizer: CLIP's byte-pair encoding, with merges learned from the captions."""

from __future__ import annotations

import json
from pathlib import Path

from safegen.miniature.captions import BACKGROUNDS, COLOUR_TEMPLATES, PLAIN_TEMPLATES
from safegen.miniature.concepts import CONCEPTS

MAX_TOKENS = 16
_VOCABULARY_SIZE = 900
_START, _END = "<|startoftext|>", "<|endoftext|>"


def caption_corpus() -> list[str]:
    """List every caption that templates, names and backgrounds can form, without regard to what is held out.

    Tokens, unlike networks, may know all words: a tokenizer learns no pictures.
    """
    templates = (*PLAIN_TEMPLATES, *COLOUR_TEMPLATES)
    return [
        template.format(name=name, colour=colour)
        for concept in CONCEPTS
        for name in (*concept.names, *concept.aliases)
        for template in templates
        for colour in BACKGROUNDS
    ]


def save_tokenizer(folder: Path) -> None:
    """Learn the merges and write ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json`` as CLIP has them.

    Args:
        folder: Where to write; made if it is missing.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(caption_corpus(), trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(merge) for merge in merges),
        _START,
        _END,
    ]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
