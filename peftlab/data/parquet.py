"""Parquet."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from peftlab.data.readers import Columns, Role, require_columns
from peftlab.errors import DataError


def read_parquet(path: Path, content: bytes, wanted: Mapping[Role, str]) -> Columns:
    """Read the wanted columns of a Parquet file; rows are numbered from 1."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        present = [str(name) for name in file.schema_arrow.names]
        repeated = [name for name, count in Counter(present).items() if count > 1 and name in wanted.values()]
        if repeated:
            raise DataError(f"{path}: holds more than one column {repeated[0]!r}; rename or remove all but one")
        require_columns(str(path), present, wanted)
        table = file.read(columns=list(dict.fromkeys(wanted.values())))
        values = {role: table.column(column).to_pylist() for role, column in wanted.items()}
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as Parquet ({reason}); write or download it anew") from error
    return Columns(range(1, table.num_rows + 1), values)
