from .evaluation import evaluate as evaluate
from .event_evaluation import evaluate_events as evaluate_events
from .recalibration import calibrate as calibrate
