"""pandas.read_json in, Parquet out. ``pandas_json.py FILE FOLDER``."""

import sys

import pandas as pd

file, folder = sys.argv[1:]
lines = pd.read_json(file, lines=True)
messages = pd.DataFrame(lines.loc[lines["type"] == "message", "data"].tolist())
messages.to_parquet(f"{folder}/messages.parquet")
