"""How long prompts and answers are: distributions that a scenario names and a seed draws from."""

import math
import random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator


class _Law(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConstantLength(_Law):
    """The same number of tokens every time."""

    law: Literal["constant"]
    tokens: PositiveInt

    def draw(self, generator: random.Random) -> int:
        """Return the length; the generator is not used."""
        return self.tokens


class UniformLength(_Law):
    """Any whole number of tokens between two bounds, both included."""

    law: Literal["uniform"]
    minimum_tokens: PositiveInt
    maximum_tokens: PositiveInt

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "UniformLength":
        if self.minimum_tokens > self.maximum_tokens:
            raise ValueError("minimum_tokens is above maximum_tokens")
        return self

    def draw(self, generator: random.Random) -> int:
        """Return one length."""
        return generator.randint(self.minimum_tokens, self.maximum_tokens)


class LognormalLength(_Law):
    """A right-skewed length, cut at both ends: the usual shape of chat prompts and answers.

    ``sigma`` is the standard deviation of the logarithm; 0.7 puts the 95th
    percentile at about three times the median.
    """

    law: Literal["lognormal"]
    median_tokens: PositiveInt
    sigma: PositiveFloat
    minimum_tokens: PositiveInt = 1
    maximum_tokens: PositiveInt

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "LognormalLength":
        if not self.minimum_tokens <= self.median_tokens <= self.maximum_tokens:
            raise ValueError("median_tokens must lie between minimum_tokens and maximum_tokens")
        return self

    def draw(self, generator: random.Random) -> int:
        """Return one length; values beyond the bounds become the bound."""
        length = round(generator.lognormvariate(math.log(self.median_tokens), self.sigma))
        return max(self.minimum_tokens, min(self.maximum_tokens, length))


Length = Annotated[ConstantLength | UniformLength | LognormalLength, Field(discriminator="law")]
