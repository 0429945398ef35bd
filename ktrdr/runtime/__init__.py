"""Where things run: the operations actor, the driver of an attempt, the Ray that carries them."""
