"""Search by example: vectors of sounds on disk, and questions to them."""
