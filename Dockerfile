# Serving only: no training, no torch, no download when it starts. Build: docker build -t rasid .
FROM python:3.11-slim AS build
COPY . /src
RUN python3 -m venv /opt/rasid
RUN /opt/rasid/bin/python -m pip install --disable-pip-version-check --no-cache-dir --quiet -c /src/constraints.txt /src

FROM python:3.11-slim
COPY --from=build /opt/rasid /opt/rasid
RUN useradd --system --no-create-home rasid
USER rasid
ENV PATH=/opt/rasid/bin:$PATH RASID_HOST=0.0.0.0 RASID_PORT=8080 PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"RASID_PORT\"]}/readyz', timeout=4)"]
CMD ["rasid", "serve"]
