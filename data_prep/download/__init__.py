"""Download: archives are fetched, checked and unpacked."""
