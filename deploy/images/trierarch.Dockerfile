# The image of the gateway, the operator and every other process of ours but the engine.
# From the root of the repository:
#   docker build --file deploy/images/trierarch.Dockerfile --tag trierarch:0.1.0 .
# Where no index can be reached, put wheels into dist/wheels first and add
#   --build-arg FIND=--no-index

ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS environment
ARG FIND=
RUN --mount=type=bind,target=/context set -e; \
    mkdir -p /tmp/source /tmp/wheels; \
    if [ -d /context/dist/wheels ]; then cp /context/dist/wheels/* /tmp/wheels/; fi; \
    python3 -m venv /opt/tools; \
    /opt/tools/bin/pip install ${FIND} --find-links /tmp/wheels --require-hashes \
        -r /context/requirements/bootstrap.lock; \
    cd /context; \
    cp --recursive pyproject.toml README.md LICENSE platform operators loadtests /tmp/source/; \
    /opt/tools/bin/uv venv --relocatable /opt/trierarch; \
    /opt/tools/bin/uv pip install ${FIND} --find-links /tmp/wheels --link-mode copy \
        --compile-bytecode --python /opt/trierarch/bin/python \
        --constraint /context/requirements/all.lock \
        '/tmp/source[gateway,operators,postgresql]'

FROM ${BASE}
RUN useradd --uid 1000 --create-home trierarch
COPY --from=environment /opt/trierarch /opt/trierarch
ENV PATH=/opt/trierarch/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/home/trierarch \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
WORKDIR /home/trierarch
USER 1000:1000
ENTRYPOINT ["trierarch"]
CMD ["--help"]
