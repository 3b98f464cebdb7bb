"""What is known of an object, as tokens: kinds of numbers with units, errors and holes; tables, files and streams of them."""

from .kinds import Kind, Vocabulary
from .plausible import Doubt, check_plausible
from .stars import Stars, stars_tokens, stars_vocabulary
from .tables import TableTokens, table_tokens, tokens_of
from .tokenset import Standardised, TokenSet

__all__ = [
    "Doubt",
    "Kind",
    "Standardised",
    "Stars",
    "TableTokens",
    "TokenSet",
    "Vocabulary",
    "check_plausible",
    "stars_tokens",
    "stars_vocabulary",
    "table_tokens",
    "tokens_of",
]
