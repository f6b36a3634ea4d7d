"""Archives, brought here and unpacked."""
