"""Encoded images: decoded, checked, scaled, told apart."""
