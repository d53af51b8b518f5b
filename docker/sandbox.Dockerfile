# The sandbox as an image, from a checkout:
#   docker build -f docker/sandbox.Dockerfile -t chatexport-sandbox .
#   docker run --rm -p 8900:8900 chatexport-sandbox
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY dags ./dags
COPY dbt ./dbt
COPY docs ./docs
COPY notebooks ./notebooks
COPY airflow_provider_chatexport ./airflow_provider_chatexport
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY docker/sandbox.txt /tmp/sandbox.txt
COPY --from=build /wheels /wheels
# Without its other dependencies: the sandbox needs neither Airflow nor DuckDB.
RUN pip install --no-cache-dir --require-hashes -r /tmp/sandbox.txt \
 && pip install --no-cache-dir --no-deps /wheels/*.whl \
 && useradd --uid 10001 --no-create-home sandbox
# As a number, so that Kubernetes sees that it is not root.
USER 10001
EXPOSE 8900
HEALTHCHECK --interval=5s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8900/_sandbox/health')"]
ENTRYPOINT ["chatexport", "sandbox", "--host", "0.0.0.0", "--port", "8900"]
