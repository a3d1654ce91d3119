"""Episodes out of the replay API into a directory, and back in.

* `directory`: what an export holds, and how its files come to be whole or not at all
* `bodies`: the lossless form, every episode as it was posted
* `tables`: Parquet, for pandas, polars and DuckDB; needs the extra ``gaitfleet[parquet]``
* `exporting`, `importing`: between a directory and a `ReplayClient`
"""
