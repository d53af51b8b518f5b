"""Stream Chat's asynchronous exports, as a Parquet lake. Airflow imports this early: it holds the version only."""

__version__ = "0.1.0"
