"""Any image dataset as batches of uint8 images."""
