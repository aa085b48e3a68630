from .embeddings import Embeddings as Embeddings
from .embeddings import embed as embed
from .listening import listen as listen
from .parallel import tag as tag
