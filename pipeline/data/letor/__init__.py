"""The reader of LETOR / SVMrank text. `read_letor` is in reader.py, `read_lists` in lists.py.

The reader compiles code with numba, which takes half a second to import. Import reader.py or lists.py only where text
is read.
"""

from pipeline.data.letor.errors import LetorError

DUPLICATES = ("error", "first", "last", "sum")
UNSORTED = ("error", "accept")

__all__ = ["DUPLICATES", "UNSORTED", "LetorError"]
