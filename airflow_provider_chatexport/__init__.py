"""Stream Chat's asynchronous exports as a Parquet lake.

Airflow imports this module early, so it contains the version only.
"""

__version__ = "0.1.0"
