"""From frames to signal, magnetization and topology: arrays in, arrays out."""
