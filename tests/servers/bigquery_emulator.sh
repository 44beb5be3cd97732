#!/usr/bin/env bash
# Make the environment of the BigQuery emulator in a new folder (700 MB). It needs Python 3.13, and
# an older DuckDB than it asks for: the one whose extensions are on the package index.
#
#     tests/servers/bigquery_emulator.sh FOLDER
#     LOCAL_BIGQUERY=FOLDER uv run pytest -m '' tests/promises/sharing/test_bigquery_emulator.py
set -euo pipefail
folder=$(realpath -m "${1:?usage: $0 FOLDER}")

uv venv -q --no-python-downloads --python 3.13 "$folder"
echo 'duckdb==1.5.5' >"$folder/overrides.txt"
uv pip install -q --python "$folder" --overrides "$folder/overrides.txt" \
    'local-bigquery==0.4.*' \
    duckdb-extension-icu==1.5.5 duckdb-extension-ducklake==1.5.5 duckdb-extension-spatial==1.5.5

# DuckDB loads an extension from below HOME, or else asks the network for it.
HOME="$folder" "$folder/bin/python" <<'END'
import sysconfig
from pathlib import Path

import duckdb

for extension in Path(sysconfig.get_path("purelib")).glob("duckdb_extension_*/**/*.duckdb_extension"):
    duckdb.execute(f"INSTALL '{extension}'")
END
