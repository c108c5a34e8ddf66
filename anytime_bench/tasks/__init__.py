"""Tasks: named, versioned, hashed image classification data with a fixed split. NumPy only; the device comes later."""
