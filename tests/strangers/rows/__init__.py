"""The rows, a file for each kind of them."""

from tests.strangers.rows import heads, places, runs, settings
from tests.strangers.rows.base import Row

ROWS: list[Row] = [*settings.ROWS, *runs.ROWS, *heads.ROWS, *places.ROWS]
