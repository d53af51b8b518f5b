# Airflow with this provider and its example DAGs, from a checkout:
#   docker build -f docker/airflow.Dockerfile -t chatexport-airflow .
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY dags ./dags
COPY dbt ./dbt
COPY docs ./docs
COPY notebooks ./notebooks
COPY airflow_provider_chatexport ./airflow_provider_chatexport
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM apache/airflow:3.3.2
COPY --from=build /wheels /wheels
# Airflow's version is named again, so that pip does not change it.
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" "$(echo /wheels/*.whl)[s3]"
COPY dags/ /opt/airflow/dags/
USER root
# A named volume that is mounted here takes over the owner.
RUN install --directory --owner airflow --group 0 --mode 0775 /lake
USER airflow
