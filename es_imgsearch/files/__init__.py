"""Parquet and HDF5 files of vectors and fields: read, write, check."""
