"""Print the sounds of a folder that are most similar to an example, by their embeddings.

python find_similar_sounds.py example.wav recordings/ [MODEL]
"""

import sys

import numpy as np

import spectag

example, folder = sys.argv[1], sys.argv[2]
model = spectag.load(sys.argv[3] if len(sys.argv) > 3 else "audioset-mn04", progress=True)

embeddings = spectag.embed(folder, model=model, progress=True)
center, scale = embeddings.features.mean(axis=0), embeddings.features.std(axis=0) + 1e-6
vectors = (embeddings.features - center) / scale
query = (model.embed(example) - center) / scale
similarities = vectors @ query / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(query) + 1e-9)

for index in np.argsort(-similarities)[:5]:
    print(f"{similarities[index]:.3f} {embeddings.files[index]}")
