"""Tag all sounds of a folder into a table with a column for each label.

pip install 'spectag[pandas]'
python tag_many_files.py recordings/ probabilities.csv [MODEL]
"""

import sys
from pathlib import Path

import pandas as pd

import spectag

folder, output = Path(sys.argv[1]), sys.argv[2]
model = spectag.load(sys.argv[3] if len(sys.argv) > 3 else "audioset-mn04", progress=True)
paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3"))

rows = {}
for path, result in zip(paths, model.tag_many(paths, progress=True), strict=True):
    if isinstance(result, spectag.AudioError):  # it is in the place of the tags
        print(f"skipped: {result}", file=sys.stderr)
    else:
        rows[str(path)] = result.to_dict()

table = pd.DataFrame.from_dict(rows, orient="index", columns=list(model.labels))
table.to_csv(output, index_label="file")
print(f"{len(table)} files, {len(model.labels)} labels: {output}")
