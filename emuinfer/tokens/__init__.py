"""What is known of an object, as tokens: kinds of numbers with units, errors and holes; tables, files and streams of them."""

from .examples import example_stars, example_stars_path
from .files import iterate_tokens, read_tokens
from .kinds import Kind, Vocabulary
from .plausible import Doubt, check_plausible
from .stars import Stars, stars_tokens, stars_vocabulary
from .tables import TableTokens, table_tokens, tokens_of
from .tokenset import Standardised, TokenSet
from .training_table import training_table, write_training_table

__all__ = [
    "Doubt",
    "Kind",
    "Standardised",
    "Stars",
    "TableTokens",
    "TokenSet",
    "Vocabulary",
    "check_plausible",
    "example_stars",
    "example_stars_path",
    "iterate_tokens",
    "read_tokens",
    "stars_tokens",
    "stars_vocabulary",
    "table_tokens",
    "tokens_of",
    "training_table",
    "write_training_table",
]
