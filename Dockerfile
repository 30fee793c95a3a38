# A node of Noria. Its settings are NORIA_* variables: `docker run --rm IMAGE noria node --help` lists them.
# Dependencies come first, with their hashes: a change of the code installs only the code again.
FROM python:3.13-slim AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1

FROM base AS dependencies
WORKDIR /build
COPY deploy/requirements.py deploy/
COPY pyproject.toml requirements.lock ./
RUN python deploy/requirements.py noria watchfiles > run.txt \
 && python -m venv --without-pip /venv \
 && pip --python /venv/bin/python install --only-binary :all: --require-hashes -r run.txt

FROM base AS wheel
WORKDIR /build
COPY deploy/requirements.py deploy/
COPY pyproject.toml requirements.lock ./
RUN python deploy/requirements.py hatchling > build.txt \
 && pip install --only-binary :all: --require-hashes -r build.txt
COPY README.md LICENSE ./
COPY runtime runtime
COPY actors actors
COPY node node
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist .

FROM base
RUN useradd --system --uid 10001 --create-home noria
COPY --from=dependencies /venv /venv
COPY --from=wheel /build/dist /tmp/dist
RUN pip --python /venv/bin/python install --no-deps /tmp/dist/*.whl && rm -r /tmp/dist
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 NORIA_HTTP_HOST=0.0.0.0 NORIA_HTTP_PORT=8080
WORKDIR /home/noria
USER noria
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-IS", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['NORIA_HTTP_PORT']), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
# SIGTERM drains: give it more time than NORIA_DRAIN_S (docker stop --time, terminationGracePeriodSeconds).
CMD ["noria", "node"]
