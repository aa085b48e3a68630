from .active_learning import suggest as suggest
from .label_review import review as review
from .sound_index.api import index as index
from .sound_index.api import search as search
from .sound_index.searching import SoundIndex as SoundIndex
