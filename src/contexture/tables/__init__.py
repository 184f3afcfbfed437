"""Tables in files: read, inferred, matched to what a learner was trained on, and written.

Nothing here but `contexture.tables.encode` needs torch, so bad input fails at once.
"""

from contexture.tables.build import read_dataset, table_dataset
from contexture.tables.dataset import Dataset
from contexture.tables.frame import Table
from contexture.tables.match import MatchedTable, match_columns, read_matching
from contexture.tables.read import read_table
from contexture.tables.schema import TableColumn, TableSchema
from contexture.tables.write import check_output, write_predictions

__all__ = [
    "Dataset",
    "MatchedTable",
    "Table",
    "TableColumn",
    "TableSchema",
    "check_output",
    "match_columns",
    "read_dataset",
    "read_matching",
    "read_table",
    "table_dataset",
    "write_predictions",
]
