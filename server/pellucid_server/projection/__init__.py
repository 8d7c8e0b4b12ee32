"""Maps of codes. Pure: arrays in, arrays out. It runs in processes that never load torch."""
