from .base import ImageConfig as ImageConfig
from .base import MelConfig as MelConfig
from .base import SegmentConfig as SegmentConfig
from .base import WindowConfig as WindowConfig
from .data_options import DataOptions as DataOptions
from .listening import ListenSettings as ListenSettings
from .recipe import Recipe as Recipe
from .tagging import TagSettings as TagSettings
