"""Prompts of a wanted length, made of common words.

Without the server's tokenizer a length can only be aimed at: every word here is
one token in the usual byte-pair vocabularies, and the tokens that really count
are the server's own, read from ``usage``. Prompts differ from their first words
on, so that a prefix cache helps only where a scenario asks for a shared prefix.
"""

import random

_WORD_TEXT = (
    "time people year way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea body information back "
    "parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education river mountain garden "
    "bridge window market paper music summer winter island forest harbor ship captain sailor wind "
    "storm bread table letter road village stone silver iron wood field horse bird fish tree "
    "flower light shadow color sound voice silence evening north south east west small large "
    "early late quick slow bright dark warm cold simple hard open close long short old young new "
    "good great strong quiet deep high low"
)
WORDS = _WORD_TEXT.split()

STORY_INSTRUCTION = "Write a long story that uses these words:"
SUMMARY_INSTRUCTION = "Summarize these notes in one long paragraph:"


def prose(generator: random.Random, words: int) -> str:
    """Return ``words`` random words, at least one."""
    return " ".join(generator.choices(WORDS, k=max(1, words)))


def instruct(instruction: str, generator: random.Random, tokens: int) -> str:
    """Return an instruction followed by random words, about ``tokens`` tokens in all."""
    return f"{instruction} {prose(generator, tokens - len(instruction.split()))}."
