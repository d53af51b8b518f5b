"""The connection to the service, Airflow's configuration, and our errors in Airflow's terms."""
