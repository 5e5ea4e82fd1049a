# BoilStream as a small image that runs as a normal user. Versions and hashes come from
# requirements.lock alone; see docker-compose.yml for a deployment.

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/boilstream

# The lock also holds the tools of the tests, so it is not installed whole: as constraints it lends
# its versions and hashes to what pyproject.toml names, and an unlisted hash is an error.
COPY pyproject.toml requirements.lock ./
RUN python -m venv tools \
    && awk '/^[a-z]/ { uv = /^uv==/ } uv' requirements.lock > uv.lock \
    && awk '/^[a-z]/ { builder = /^hatchling==/ } builder' requirements.lock > builder.lock \
    && tools/bin/pip install --quiet --require-hashes -r uv.lock \
    && tools/bin/uv pip install --quiet --python tools/bin/python --require-hashes \
        --constraints requirements.lock -r builder.lock \
    && python -m venv --without-pip /opt/boilstream \
    && tools/bin/uv pip install --require-hashes --constraints requirements.lock --compile-bytecode -r pyproject.toml \
    # Headers, Cython sources and tests of pyarrow: nothing imports them.
    && cd /opt/boilstream/lib/python*/site-packages/pyarrow \
    && rm -rf include includes src tests \
    && find . -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' | xargs rm -f

COPY README.md ./
COPY boilstream boilstream
RUN tools/bin/uv build --quiet --wheel --no-build-isolation --python tools/bin/python --out-dir dist \
    && tools/bin/uv pip install --no-deps --no-index --compile-bytecode dist/*.whl


FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="BoilStream" \
      org.opencontainers.image.description="Arrow Flight ingestion server: a bearer token in, durable Parquet on S3 out"
ENV PATH=/opt/boilstream/bin:$PATH \
    DATA_DIR=/var/lib/boilstream/data \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN groupadd --gid 10001 boilstream \
    && useradd --uid 10001 --gid boilstream --home-dir /var/lib/boilstream --no-create-home \
        --shell /usr/sbin/nologin boilstream \
    && install --directory --owner boilstream --group boilstream --mode 0750 \
        /var/lib/boilstream /var/lib/boilstream/data /var/lib/boilstream/certs
COPY --from=build /opt/boilstream /opt/boilstream

WORKDIR /var/lib/boilstream
USER 10001:10001
VOLUME /var/lib/boilstream/data
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "boilstream.flight.probe"]
ENTRYPOINT ["boilstream"]
CMD ["serve"]
