"""What is known of an object, as tokens: kinds of numbers with units, errors and holes; tables, files and streams of them."""

from .kinds import Kind, Vocabulary
from .stars import Stars, stars_tokens, stars_vocabulary
from .tokenset import Standardised, TokenSet

__all__ = ["Kind", "Standardised", "Stars", "TokenSet", "Vocabulary", "stars_tokens", "stars_vocabulary"]
