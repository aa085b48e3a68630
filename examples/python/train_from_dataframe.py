"""Train a model on a DataFrame of files and labels, and score it on clips that it was not trained on.

pip install 'spectag[train]' pandas
python train_from_dataframe.py labels.csv model [BACKBONE]
"""

import sys
from pathlib import Path

import pandas as pd

import spectag

source, output = Path(sys.argv[1]), sys.argv[2]
recipe = spectag.Recipe(backbone=sys.argv[3]) if len(sys.argv) > 3 else None  # by default mn04_audioset

clips = pd.read_csv(source)
clips["fname"] = [str(source.parent / name) for name in clips["fname"]]
test = clips.sample(frac=0.2, random_state=0)  # with clips of few recordings, draw whole recordings

result = spectag.train(clips.drop(test.index), output, recipe, progress=True)
print(result.scores)  # of clips that were held out in training

model = spectag.load(output)
evaluation = spectag.evaluate(model, test)
print(evaluation)
print(evaluation.to_dataframe("per_label")[["label", "n_clips", "average_precision", "f1"]].to_string(index=False))
