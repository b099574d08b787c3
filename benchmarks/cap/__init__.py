"""Upload caps as they are seen at the modem: Penstock's beside those of three other clients."""
