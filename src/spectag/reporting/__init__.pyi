from .augmentation_page import augment as augment
from .clip_plots import show as show
from .evaluation_report.page import write_report as write_report
from .explanation import explain as explain
from .first_run import demo as demo
