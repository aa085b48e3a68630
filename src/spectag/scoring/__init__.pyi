from .calibration import cross_fit as cross_fit
from .calibration import fit_calibration as fit_calibration
from .metrics import average_precision as average_precision
from .metrics import lwlrap as lwlrap
from .metrics import roc_auc as roc_auc
from .reliability_diagram import reliability as reliability
from .thresholds import ThresholdGoal as ThresholdGoal
from .thresholds import fit_thresholds as fit_thresholds
