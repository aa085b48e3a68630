from .pipeline import train as train
from .tuning.learning_rate_finder import find_learning_rate as find_learning_rate
from .tuning.study import tune as tune
