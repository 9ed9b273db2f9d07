"""Vectors and fields in files: out of an index into Parquet or HDF5, and from anywhere into one.

index ──Store.page──▶ exporting ──columns──▶ parquet | hdf5
parquet | hdf5 ──rows──▶ sending (two threads, SMILE or NDJSON) ──Store.bulk──▶ index
"""
