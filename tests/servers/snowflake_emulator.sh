#!/usr/bin/env bash
# Make the environment of fakesnow, a Snowflake on loopback, in a new folder (350 MB).
#
#     tests/servers/snowflake_emulator.sh FOLDER
#     FAKESNOW=FOLDER uv run pytest -m '' tests/promises/tables/test_tables.py
set -euo pipefail
folder=$(realpath -m "${1:?usage: $0 FOLDER}")

uv venv -q --python 3.11 "$folder"
# It imports a module that later versions of the connector do not have.
uv pip install -q --python "$folder" 'fakesnow[server]==0.12.1' 'snowflake-connector-python<5' \
    'duckdb==2.0.1'
