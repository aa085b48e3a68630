from .attribution import attribute as attribute
from .augmentation_page import augment as augment
from .clip_plots import show as show
from .clip_plots import show_log_mel as show_log_mel
from .evaluation_report.page import write_report as write_report
from .explanation import explain as explain
from .explanation import show_attribution as show_attribution
from .first_run import demo as demo
