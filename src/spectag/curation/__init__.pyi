from .active_learning import suggest as suggest
from .label_review import review as review
from .sound_index.api import index as index
from .sound_index.api import search as search
from .sound_index.fingerprint_search import search_fingerprints as search_fingerprints
from .sound_index.searching import SoundIndex as SoundIndex
