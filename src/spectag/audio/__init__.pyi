from .files import read_audio as read_audio
from .files import write_audio as write_audio
from .front_end import FrontEnd as FrontEnd
from .mel import compute_log_mel as compute_log_mel
from .microphone import open_microphone as open_microphone
from .recording_info import RecordingInfo as RecordingInfo
from .recording_metadata import read_recording_info as read_recording_info
