"""Object stores: the one seam between BoilStream and durable storage."""
