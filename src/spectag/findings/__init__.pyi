from .clip_export import clips as clips
from .detection_check import check as check
from .detection_summary import summary as summary
from .tag_writing import write_tags as write_tags
