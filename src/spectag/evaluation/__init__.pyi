from .evaluation import evaluate as evaluate
from .recalibration import calibrate as calibrate
