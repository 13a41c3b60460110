# Serving only: no training, no torch, no download when it starts. Build: docker build -t rasid .
# It listens on all addresses of its container, so it wants API keys (`rasid keys add`) or to be told that it may do without:
#   docker run -p 8080:8080 -v $PWD/keys.json:/keys.json:ro -e RASID_KEYS=/keys.json rasid
#   docker run -p 127.0.0.1:8080:8080 -e RASID_ALLOW_ANONYMOUS=1 rasid
FROM python:3.11-slim AS build
COPY . /src
RUN python3 -m venv /opt/rasid
RUN /opt/rasid/bin/python -m pip install --disable-pip-version-check --no-cache-dir --quiet -c /src/constraints.txt /src

FROM python:3.11-slim
COPY --from=build /opt/rasid /opt/rasid
RUN useradd --system --no-create-home rasid && install -d -o rasid -m 700 /var/lib/rasid
USER rasid
VOLUME /var/lib/rasid
ENV PATH=/opt/rasid/bin:$PATH RASID_JOBS=/var/lib/rasid/jobs RASID_HOST=0.0.0.0 RASID_PORT=8080 PYTHONUNBUFFERED=1
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"RASID_PORT\"]}/readyz', timeout=4)"]
CMD ["rasid", "serve"]
