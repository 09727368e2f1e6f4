"""ophyd devices of the MISTRAL microscope and the one file of their addresses."""
