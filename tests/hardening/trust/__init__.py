"""Code in files, names that lead elsewhere, other machines."""
