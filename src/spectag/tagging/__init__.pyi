from .listening import listen as listen
from .parallel import tag as tag
