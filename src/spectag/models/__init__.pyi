from .bundle import BundleInfo as BundleInfo
from .pretrained import load as load
from .tagger import Tagger as Tagger
from .tagger import Tags as Tags
from .timeline import Timeline as Timeline
